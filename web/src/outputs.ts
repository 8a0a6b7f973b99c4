// What a run has put out, in its order: the first ones and the last ones, with a note of how many are not shown between.

import { Bundle } from "./bundle";
import { h, size } from "./dom";
import { Stream } from "./stream";
import type { Output, Shown } from "./wire";

const HEAD = 40;
const TAIL = 80;

interface Item {
  element: HTMLElement;
  bundle: Bundle | null;
  stream: Stream | null;
  id: string | null;
}

/** Displays of a session by their display_id: an update changes them wherever they are. */
export type Displays = Map<string, Set<Bundle>>;

export class Outputs {
  readonly element = h("div", { class: "outputs" });
  private head: Item[] = [];
  private tail: Item[] = [];
  private omitted = 0;
  private clearing = false;
  private readonly note = h("p", { class: "note" });

  constructor(private readonly displays: Displays) {}

  text(name: "stdout" | "stderr", text: string): void {
    this.clearIfAsked();
    const last = (this.tail.length > 0 ? this.tail : this.head).at(-1);
    if (last?.stream?.name === name) {
      last.stream.write(text);
      return;
    }
    const stream = new Stream(name);
    stream.write(text);
    this.add({ element: stream.element, bundle: null, stream, id: null });
  }

  show(shown: Shown): void {
    const id = shown.display_id ?? null;
    const only = this.head.length === 1 ? this.head[0] : undefined;
    // An animation: the old picture stays until the new one can be seen.
    if (this.clearing && only !== undefined && only.bundle !== null && only.id === null && id === null) {
      this.clearing = false;
      only.bundle.show(shown);
      return;
    }
    this.clearIfAsked();
    const bundle = new Bundle(shown);
    if (id !== null) {
      const same = this.displays.get(id) ?? new Set();
      same.add(bundle);
      this.displays.set(id, same);
    }
    this.add({ element: bundle.element, bundle, stream: null, id });
  }

  update(shown: Shown): void {
    for (const bundle of this.displays.get(shown.display_id ?? "") ?? []) bundle.show(shown);
  }

  error(name: string, value: string, traceback: string): void {
    this.clearIfAsked();
    const stream = new Stream("error");
    stream.write(traceback || `${name}: ${value}`);
    this.add({ element: stream.element, bundle: null, stream, id: null });
  }

  /** Words of the page itself among the outputs. */
  say(text: string, kind = "note"): HTMLElement {
    const element = h("p", { class: kind }, text);
    this.add({ element, bundle: null, stream: null, id: null });
    return element;
  }

  clear(wait: boolean): void {
    this.clearing = wait;
    if (!wait) this.close();
  }

  /** One of a Result. */
  output(output: Output): void {
    switch (output.type) {
      case "stdout":
      case "stderr":
        return this.text(output.type, output.text);
      case "error":
        return this.error(output.name, output.value, output.traceback);
      case "omission":
        this.say(left_out(output));
        return;
      default:
        this.show(output);
    }
  }

  close(): void {
    for (const item of [...this.head, ...this.tail]) this.let_go(item);
    this.head = [];
    this.tail = [];
    this.omitted = 0;
    this.element.replaceChildren();
  }

  private clearIfAsked(): void {
    if (!this.clearing) return;
    this.clearing = false;
    this.close();
  }

  private add(item: Item): void {
    this.element.append(item.element);
    if (this.head.length < HEAD) {
      this.head.push(item);
      return;
    }
    this.tail.push(item);
    if (this.tail.length <= TAIL) return;
    const gone = this.tail.shift();
    if (gone !== undefined) this.let_go(gone);
    this.omitted += 1;
    this.note.textContent = `… ${this.omitted.toLocaleString("en")} outputs are not shown here …`;
    if (!this.note.isConnected) this.head.at(-1)?.element.after(this.note);
  }

  private let_go(item: Item): void {
    item.bundle?.close();
    item.element.remove();
    if (item.id === null || item.bundle === null) return;
    const same = this.displays.get(item.id);
    same?.delete(item.bundle);
    if (same?.size === 0) this.displays.delete(item.id);
  }
}

function left_out(output: { stdout: number; stderr: number; displays: number }): string {
  const parts = [
    output.stdout > 0 ? `${size(output.stdout)} of standard output` : "",
    output.stderr > 0 ? `${size(output.stderr)} of standard error` : "",
    output.displays > 0 ? `${size(output.displays)} of displays` : "",
  ].filter((text) => text !== "");
  return `… the service has left out ${parts.join(" and ") || "output"} here …`;
}
