// Command line, deadline and report. No AMQP lives here.

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

const SCENARIO_SECONDS = 20;
const CLEAN_UP_SECONDS = 5;

/** The library has no call for this scenario; the message names the call. */
export class Absent extends Error {}

/** A queue or exchange name that no other run uses. */
export const unique = (name) => `conformance-${name}-${randomBytes(6).toString("hex")}`;

/** What arrives by callback, to be awaited: `push` puts in, `next` and `take` wait for it. */
export class Inbox {
  items = [];
  #waiting = [];

  push = (item) => {
    const waiting = this.#waiting.shift();
    if (waiting) waiting(item);
    else this.items.push(item);
  };

  async next() {
    return this.items.length ? this.items.shift() : new Promise((resolve) => this.#waiting.push(resolve));
  }

  async take(count) {
    const taken = [];
    while (taken.length < count) taken.push(await this.next());
    return taken;
  }
}

/** Runs this program again as `--worker QUEUE`; `lines` are what it says, `kill` gives it no chance to say goodbye. */
export function startVictim(url, queue) {
  const child = spawn(process.execPath, [process.argv[1], "--url", url, "--worker", queue], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const lines = new Inbox();
  createInterface(child.stdout).on("line", lines.push);
  const kill = async () => {
    if (child.exitCode === null && child.kill("SIGKILL")) await once(child, "exit");
  };
  return { lines, kill };
}

/** Runs the scenarios, functions of what `open(url)` gives, named after themselves, or one `worker(url, queue)`. */
export async function main(scenarios, open, worker) {
  const { values: options } = parseArgs({
    options: {
      url: { type: "string", default: "amqp://guest:guest@127.0.0.1:5672/%2f" },
      only: { type: "string", default: "" },
      worker: { type: "string" },
    },
  });
  if (options.worker) return worker(options.url, options.worker);

  const chosen = scenarios.filter((scenario) => scenario.name.includes(options.only));
  if (!chosen.length) throw new Error(`no scenario's name contains '${options.only}'`);
  const outcomes = [];
  for (const scenario of chosen) outcomes.push(await outcome(scenario, open, options.url));
  const count = (wanted) => outcomes.filter((outcome) => outcome === wanted).length;
  console.log(`${count("ok")} passed, ${count("not ok")} failed`);
  process.exit(count("not ok") ? 1 : 0);
}

/** Runs one scenario with a bench of its own, and then has the bench delete its names, whatever happened. */
async function outcome(scenario, open, url) {
  const report = (outcome, reason = "") => {
    console.log(`${outcome} ${scenario.name}${reason && ` -- ${reason.replace(/\s+/g, " ")}`}`);
    return outcome;
  };
  try {
    const bench = await inTime(open(url), CLEAN_UP_SECONDS);
    const ended = await inTime(scenario(bench), SCENARIO_SECONDS).catch((error) => error);
    const deleted = await inTime(bench.delete(), CLEAN_UP_SECONDS).catch((error) => error);
    if (ended ?? deleted) throw ended ?? deleted;
    return report("ok");
  } catch (error) {
    if (error instanceof Absent) return report("n/a", `the library has no such call (${error.message})`);
    const line = /scenarios\.js:(\d+)/.exec(error.stack)?.[1] ?? "?";
    return report("not ok", `line ${line}: ${error.message}`);
  }
}

async function inTime(promise, seconds) {
  let timer;
  const tooLate = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done within ${seconds} s`)), seconds * 1000);
  });
  return Promise.race([promise, tooLate]).finally(() => clearTimeout(timer));
}
