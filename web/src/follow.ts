// The events of one run, each once, whatever becomes of the connection.

import { lines, Problem, request } from "./api";
import type { Event } from "./wire";

const PATIENCE = 25_000; // the service sends something every 10 s
export const BREATH = 12; // milliseconds of work after which the browser may draw

export interface Watcher {
  /** Called in the order of their numbers. */
  event(event: Event): void;
  /** The connection is there, or is lost and asked for again; `why`: what the service said. */
  connected(is: boolean, why?: string): void;
  /** There will be no more events though the run did not end: why. */
  gone(why: string): void;
}

/** Gives the events from number `after` + 1 on to the watcher until the run has ended or the signal comes. Never raises. */
export async function follow(run: string, watcher: Watcher, signal: AbortSignal, after = 0): Promise<void> {
  let last = after;
  let failures = 0;
  let breath = performance.now();
  while (!signal.aborted) {
    try {
      const response = await request(`/v1/runs/${encodeURIComponent(run)}/events?blobs=reference&after=${last}`, {
        headers: { Accept: "application/x-ndjson" },
        signal,
      });
      watcher.connected(true);
      for await (const piece of lines(response, PATIENCE)) {
        failures = 0;
        for (const event of piece as Event[]) {
          if (signal.aborted) return;
          if (event.seq <= last) continue;
          last = event.seq;
          watcher.event(event);
          if (event.type === "finished") return;
          if (performance.now() - breath > BREATH) {
            await new Promise((resolve) => setTimeout(resolve, 0));
            breath = performance.now();
          }
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.status < 500 && error.status !== 429) {
        watcher.gone(error.message);
        return;
      }
      watcher.connected(false, error instanceof Problem ? error.message : undefined);
      failures += 1;
      await pause(waited(failures), signal);
      continue;
    }
    watcher.connected(false);
    failures += 1;
    await pause(waited(failures), signal);
  }
}

function waited(failures: number): number {
  return Math.min(5_000, 200 * 2 ** Math.min(failures, 5)) * (0.5 + Math.random() / 2);
}

export function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener("abort", end);
  });
}
