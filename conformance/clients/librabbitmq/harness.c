#include "harness.h"

#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SCENARIO_SECONDS = 20, CLEAN_UP_SECONDS = 5 };

const char *broker_url = "amqp://guest:guest@127.0.0.1:5672/%2f";
char run_token[13];

static const char *running = "clean-up";

_Noreturn void fail(const char *format, ...) {
  char reason[4096];
  va_list values;
  va_start(values, format);
  vsnprintf(reason, sizeof reason, format, values);
  va_end(values);
  for (char *at = reason; *at; at++)
    if (*at == '\n' || *at == '\r') *at = ' ';
  printf("not ok %s -- %s\n", running, reason);
  fflush(stdout);
  _exit(1);
}

victim_t start_victim(void (*work)(const void *), const void *argument) {
  int ends[2];
  if (pipe(ends)) fail("pipe: %m");
  pid_t process = fork();
  if (process < 0) fail("fork: %m");
  if (process == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* not to outlive a scenario that fails */
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    close(ends[1]);
    work(argument);
    _exit(0);
  }
  close(ends[1]);
  return (victim_t){process, fdopen(ends[0], "r")};
}

void kill_victim(victim_t *victim) {
  kill(victim->process, SIGKILL);
  waitpid(victim->process, NULL, 0);
  fclose(victim->lines);
}

/* Runs in a process of its own; true when it ended well, else the reason is told unless it must be quiet. */
static bool passes(void (*run)(void), int seconds, bool quiet) {
  fflush(stdout);
  pid_t process = fork();
  if (process < 0) fail("fork: %m");
  if (process == 0) {
    alarm(seconds);
    if (quiet && !freopen("/dev/null", "w", stdout)) _exit(1);
    run();
    fflush(stdout);
    _exit(0);
  }
  int status;
  waitpid(process, &status, 0);
  if (WIFSIGNALED(status) && !quiet) {
    if (WTERMSIG(status) == SIGALRM) printf("not ok %s -- not done within %d s\n", running, seconds);
    else printf("not ok %s -- %s\n", running, strsignal(WTERMSIG(status)));
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void new_token(void) {
  unsigned char random[6];
  if (getrandom(random, sizeof random, 0) != sizeof random) fail("getrandom: %m");
  for (size_t n = 0; n < sizeof random; n++) snprintf(run_token + 2 * n, 3, "%02x", random[n]);
}

int harness_main(int argc, char **argv, const scenario_t *scenarios, int count, void (*clean_up)(void)) {
  const char *only = "";
  for (int n = 1; n < argc; n += 2) {
    const char *value = n + 1 < argc ? argv[n + 1] : NULL;
    if (value && !strcmp(argv[n], "--url")) broker_url = value;
    else if (value && !strcmp(argv[n], "--only")) only = value;
    else {
      fprintf(stderr, "usage: run [--url URL] [--only PATTERN]\n");
      return 2;
    }
  }
  int passed = 0, failed = 0;
  for (const scenario_t *scenario = scenarios; scenario < scenarios + count; scenario++) {
    if (!strstr(scenario->name, only)) continue;
    running = scenario->name;
    new_token();
    bool well = passes(scenario->run, SCENARIO_SECONDS, false);
    bool clean = passes(clean_up, CLEAN_UP_SECONDS, !well); /* one line per scenario */
    if (well && clean) {
      printf("ok %s\n", scenario->name);
      passed++;
    } else {
      failed++;
    }
  }
  if (passed + failed == 0) {
    fprintf(stderr, "no scenario's name contains '%s'\n", only);
    return 2;
  }
  printf("%d passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}
