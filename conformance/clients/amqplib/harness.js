// Command line, deadline and report. No AMQP lives here.

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

const SCENARIO_SECONDS = 20;

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

/** Runs the scenarios, async functions of the broker's URL named after themselves, or one `worker(url, queue)`. */
export async function main(scenarios, worker) {
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
  for (const scenario of chosen) outcomes.push(await outcome(scenario, options.url));
  const count = (wanted) => outcomes.filter((outcome) => outcome === wanted).length;
  console.log(`${count("ok")} passed, ${count("not ok")} failed`);
  process.exit(count("not ok") ? 1 : 0);
}

async function outcome(scenario, url) {
  const report = (outcome, reason = "") => {
    console.log(`${outcome} ${scenario.name}${reason && ` -- ${reason.replace(/\s+/g, " ")}`}`);
    return outcome;
  };
  let timer;
  const tooLate = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done within ${SCENARIO_SECONDS} s`)), SCENARIO_SECONDS * 1000);
  });
  try {
    await Promise.race([scenario(url), tooLate]);
    return report("ok");
  } catch (error) {
    if (error instanceof Absent) return report("n/a", `the library has no such call (${error.message})`);
    const line = /scenarios\.js:(\d+)/.exec(error.stack)?.[1] ?? "?";
    return report("not ok", `line ${line}: ${error.message}`);
  } finally {
    clearTimeout(timer);
  }
}
