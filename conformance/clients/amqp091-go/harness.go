package main

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"time"
)

// Command line, deadline and report. No AMQP lives here.

const (
	scenarioTime = 20 * time.Second
	cleanUpTime  = 5 * time.Second
)

type scenario struct {
	name string
	run  func(b *bench)
}

// failure is what same and check panic with: scenarios read as examples, without an if after every call.
type failure struct {
	line   int
	reason string
}

func fail(format string, values ...any) {
	line := 0
	for depth := 1; ; depth++ {
		_, file, at, ok := runtime.Caller(depth)
		if !ok {
			break
		}
		if strings.HasSuffix(file, "scenarios.go") {
			line = at
			break
		}
	}
	panic(failure{line, strings.Join(strings.Fields(fmt.Sprintf(format, values...)), " ")})
}

func check(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func same[T any](got, expected T) {
	if !reflect.DeepEqual(got, expected) {
		fail("got %v, expected %v", got, expected)
	}
}

// unique is a queue or exchange name that no other run uses.
func unique(name string) string {
	random := make([]byte, 6)
	must(rand.Read(random))
	return "conformance-" + name + "-" + hex.EncodeToString(random)
}

// victim is this program again, as `--worker QUEUE`; lines are what it says.
type victim struct {
	command *exec.Cmd
	lines   *bufio.Scanner
}

func startVictim(url, queue string) victim {
	command := exec.Command(must(os.Executable()), "--url", url, "--worker", queue)
	command.Stderr = os.Stderr
	var stdout io.Reader = must(command.StdoutPipe())
	check(command.Start())
	return victim{command, bufio.NewScanner(stdout)}
}

func (v victim) take(count int) (lines []string) {
	for len(lines) < count && v.lines.Scan() {
		lines = append(lines, v.lines.Text())
	}
	return lines
}

// kill is SIGKILL: no chance to say goodbye.
func (v victim) kill() {
	_ = v.command.Process.Kill() // fails only when it is dead already
	_ = v.command.Wait()         // says that it was killed
}

// attempt runs what may panic or hang; nil when it ended well and in time.
func attempt(limit time.Duration, what func()) *failure {
	done := make(chan *failure, 1)
	go func() {
		defer func() {
			switch problem := recover().(type) {
			case nil:
				done <- nil
			case failure:
				done <- &problem
			default:
				done <- &failure{0, fmt.Sprint(problem)}
			}
		}()
		what()
	}()
	select {
	case problem := <-done:
		return problem
	case <-time.After(limit):
		return &failure{0, fmt.Sprintf("not done within %v", limit)}
	}
}

// passes runs one scenario and deletes its names, whatever happened.
func passes(s scenario, url string) bool {
	var b *bench
	problem := attempt(cleanUpTime, func() { b = newBench(url) })
	if problem == nil {
		problem = attempt(scenarioTime, func() { s.run(b) })
		if unclean := attempt(cleanUpTime, b.delete); problem == nil {
			problem = unclean
		}
	}
	if problem != nil {
		fmt.Printf("not ok %s -- line %d: %s\n", s.name, problem.line, problem.reason)
		return false
	}
	fmt.Println("ok", s.name)
	return true
}

func main() {
	url := flag.String("url", "amqp://guest:guest@127.0.0.1:5672/%2f", "the broker")
	only := flag.String("only", "", "run scenarios whose name contains this")
	queue := flag.String("worker", "", "be the victim of worker_killed on this queue")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "unexpected argument:", flag.Arg(0))
		os.Exit(2)
	}
	if *queue != "" {
		worker(*url, *queue)
		return
	}
	passed, failed := 0, 0
	for _, s := range scenarios {
		if !strings.Contains(s.name, *only) {
			continue
		}
		if passes(s, *url) {
			passed++
		} else {
			failed++
		}
	}
	if passed+failed == 0 {
		fmt.Fprintf(os.Stderr, "no scenario's name contains %q\n", *only)
		os.Exit(2)
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}
