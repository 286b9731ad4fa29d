/* Command line, deadline and report. No AMQP lives here. */
#ifndef HARNESS_H
#define HARNESS_H

#include <stdio.h>
#include <string.h>
#include <sys/types.h>

typedef struct {
  const char *name;
  void (*run)(void);
} scenario_t;

/* The broker, and a word that makes this run's names unlike any other's. */
extern const char *broker_url;
extern char run_token[];

/* Runs each scenario in a process of its own, which `alarm` ends after 20 s, and `clean_up` after it in another. */
int harness_main(int argc, char **argv, const scenario_t *scenarios, int count, void (*clean_up)(void));

/* Says why the scenario failed, and ends its process. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define expect(condition)                                              \
  do {                                                                 \
    if (!(condition)) fail("line %d: not so: %s", __LINE__, #condition); \
  } while (0)

#define expect_number(actual, expected)                                            \
  do {                                                                             \
    long long got_ = (actual), wanted_ = (expected);                               \
    if (got_ != wanted_) fail("line %d: got %lld, expected %lld", __LINE__, got_, wanted_); \
  } while (0)

#define expect_text(actual, expected)                                                  \
  do {                                                                                 \
    const char *got_ = (actual), *wanted_ = (expected);                                \
    if (strcmp(got_, wanted_)) fail("line %d: got '%s', expected '%s'", __LINE__, got_, wanted_); \
  } while (0)

/* A worker in a process of its own; `lines` is what it prints. */
typedef struct {
  pid_t process;
  FILE *lines;
} victim_t;

victim_t start_victim(void (*work)(const void *), const void *argument);

/* SIGKILL: the worker has no chance to say goodbye. */
void kill_victim(victim_t *victim);

#endif
