// One run on the page: its code, what it puts out, the line it asks for, how it stands and how it ended.

import { json, Problem, request, words } from "./api";
import { announce, h, notify, seconds } from "./dom";
import { coloured } from "./editor";
import { BREATH, follow, pause, type Watcher } from "./follow";
import { Outputs, type Displays } from "./outputs";
import { ENDINGS, type Ending, type Event, type Output, type Result, type RunState } from "./wire";

const PIECE = 32_768; // characters

const SAID: Record<Ending, string> = {
  ok: "Done",
  error: "Error",
  timeout: "Out of time",
  interrupted: "Interrupted",
  kernel_died: "The kernel died",
};

export interface Surroundings {
  displays: Displays;
  signal: AbortSignal;
  /** The code is to be edited again. */
  edit(code: string): void;
  /** The editor is where to go on. */
  focus(): void;
  /** It ended, or began. */
  changed(): void;
  /** The kernel proposes what to run next. */
  propose(code: string): void;
}

export class RunView implements Watcher {
  readonly element: HTMLElement;
  ended = false;
  /** It is on its way in the service: it may be followed. */
  live = false;
  /** By which it can be had back. */
  state: RunState | null = null;
  private readonly outputs: Outputs;
  private readonly restarted = h("p", { class: "restarted", role: "note", hidden: true });
  private readonly number = h("span", { class: "number" });
  private readonly standing = h("span", { class: "state" });
  private readonly time = h("span", { class: "time" });
  private readonly broken = h("span", { class: "broken", hidden: true });
  private readonly codePlace = h("div", { class: "code-place" });
  private input: HTMLFormElement | null = null;
  private prompt = "";
  private echoed: HTMLFormElement | null = null; // whose line is shown already
  private readonly closed = new AbortController();
  private stream: AbortController | null = null;
  private last = 0; // number of the last event
  private age = 0;
  private began: number | null = null;
  private ticking: ReturnType<typeof setInterval> | undefined;

  constructor(
    public id: string | null,
    readonly code: string | null,
    private readonly around: Surroundings,
  ) {
    this.outputs = new Outputs(around.displays);
    const shown = code === null ? h("p", { class: "note" }, "Its code is too long to be shown here; the notebook has it.") : coloured(code);
    const edit = h("button", { type: "button", class: "quiet edit", title: "Edit a copy of this code", click: () => around.edit(code ?? "") }, "Edit");
    edit.hidden = code === null;
    this.codePlace.append(shown, edit);
    const foot = h("footer", {}, this.number, this.standing, this.time, this.broken);
    this.element = h("article", { class: "run", tabindex: "-1", "aria-label": "Run" }, this.restarted, this.codePlace, this.outputs.element, foot);
    this.stand("waiting", "Sent");
    around.signal.addEventListener("abort", () => this.close(), { signal: this.closed.signal });
  }

  /** A run that is there already: its result, or its events from the first on. */
  async load(state: RunState): Promise<void> {
    this.id = state.execution_id;
    this.state = state;
    if (!ENDINGS.includes(state.status)) return this.begin(Math.max(0, Date.now() / 1000 - state.created));
    this.stand("waiting", "Loading …");
    for (let wait = 300; ; wait = Math.min(5_000, wait * 2)) {
      try {
        const result = await json<Result>(`/v1/runs/${encodeURIComponent(this.id)}?blobs=reference`, { signal: this.closed.signal });
        await this.show(result);
        return;
      } catch (error) {
        if (this.closed.signal.aborted) return;
        if (error instanceof Problem && error.status < 500 && error.status !== 429) return this.gone(error.message);
        await pause(wait, this.closed.signal);
        if (this.closed.signal.aborted) return;
      }
    }
  }

  /** It is in the service. `age`: seconds since it was asked for. */
  begin(age = 0): void {
    this.age = age;
    this.began = performance.now() - age * 1000;
    this.live = true;
    this.ticking = setInterval(() => this.tick(), 100);
    this.around.changed();
  }

  /** Its events come, from the first that was not seen on, until it has ended or is let go. */
  attend(): void {
    if (this.stream !== null || !this.live || this.id === null) return;
    this.stream = new AbortController();
    void follow(this.id, this, this.stream.signal, this.last);
  }

  /** A connection less: a browser has six for a host. */
  release(): void {
    this.stream?.abort();
    this.stream = null;
  }

  /** Those before it go first. */
  waits(place: number): void {
    if (this.live && this.last === 0) this.stand("waiting", place === 1 ? "Next in line" : `Number ${place} in line`);
  }

  async interrupt(): Promise<void> {
    if (this.id === null || this.ended) return;
    try {
      await request(`/v1/runs/${encodeURIComponent(this.id)}/interrupt`, { method: "POST" });
    } catch (error) {
      if (!(error instanceof Problem && error.code === "conflict")) notify(`It could not be stopped: ${words(error)}`, "error");
    }
  }

  event(event: Event): void {
    this.last = event.seq;
    if (event.type !== "queued") this.answered();
    switch (event.type) {
      case "queued":
        this.stand("waiting", event.position === 1 ? "Next in line" : `Number ${event.position} in line`);
        break;
      case "started":
        // Seen again later, it tells nothing of when that was.
        if (this.age === 0) this.began = performance.now();
        this.counted(event.execution_count);
        this.stand("running", "Running");
        break;
      case "stdout":
      case "stderr":
        this.outputs.text(event.type, event.text);
        break;
      case "display":
      case "execute_result":
        this.outputs.show(event);
        break;
      case "display_update":
        this.outputs.update(event);
        break;
      case "clear_output":
        this.outputs.clear(event.wait);
        break;
      case "input_request":
        this.ask(event.prompt, event.password);
        break;
      case "error_output":
        this.outputs.error(event.name, event.value, event.traceback);
        break;
      case "output_dropped":
        this.outputs.say(`Output was lost: ${event.detail}`, "lost");
        break;
      case "kernel_restarted":
        this.restart(event.reason);
        break;
      case "payload":
        if (event.source === "page") this.outputs.show({ data: (event.content["data"] ?? {}) as Record<string, unknown> });
        else if (event.source === "set_next_input") this.around.propose(String(event.content["text"] ?? ""));
        break;
      case "finished":
        this.end(event.status, event.duration, event.reason);
        break;
      case "comm":
        break;
    }
  }

  connected(is: boolean, why = "connection lost"): void {
    this.broken.hidden = is;
    this.broken.textContent = `${why}, trying again …`;
  }

  gone(why: string): void {
    this.finish();
    this.stand("kernel_died", why);
    this.time.textContent = "";
  }

  private async show(result: Result): Promise<void> {
    this.counted(result.execution_count);
    if (result.restarted !== null) this.restart(result.restarted);
    let breath = performance.now();
    for (const output of result.outputs.flatMap(pieces)) {
      if (performance.now() - breath > BREATH) {
        await new Promise((resolve) => setTimeout(resolve, 0));
        breath = performance.now();
      }
      if (this.closed.signal.aborted) return;
      this.outputs.output(output);
    }
    for (const dropped of result.dropped) this.outputs.say(`Output was lost: ${dropped}`, "lost");
    this.end(result.status, result.duration, result.reason, true);
  }

  private restart(reason: string): void {
    this.restarted.hidden = false;
    this.restarted.textContent = `The kernel was restarted, the variables of earlier runs are gone: ${reason}`;
  }

  private counted(count: number | null): void {
    if (count !== null) this.number.textContent = `[${count}]`;
  }

  private stand(state: string, text: string): void {
    this.element.dataset["state"] = state;
    this.standing.dataset["state"] = state;
    this.standing.textContent = text;
  }

  private tick(): void {
    if (this.began !== null) this.time.textContent = seconds((performance.now() - this.began) / 1000);
  }

  private end(status: Ending, duration: number, reason: string | null, before = false): void {
    this.finish();
    this.state ??= { execution_id: this.id ?? "", session: null, status, created: 0, last: 0, ...(this.code === null ? {} : { code: this.code }) };
    this.state.status = status;
    const words = reason === null || status === "error" ? SAID[status] : `${SAID[status]}: ${reason}`;
    this.stand(status, words);
    this.time.textContent = seconds(duration);
    if (!before) announce(`${words}, ${seconds(duration)}`);
  }

  private finish(): void {
    this.ended = true;
    this.live = false;
    this.release();
    clearInterval(this.ticking);
    this.answered();
    this.broken.hidden = true;
    this.around.changed();
  }

  /** It is taken off the page. */
  close(): void {
    this.closed.abort();
    this.release();
    this.live = false;
    clearInterval(this.ticking);
    this.outputs.close();
  }

  private ask(prompt: string, password: boolean): void {
    const field = h("input", { type: password ? "password" : "text", autocomplete: "off", spellcheck: "false", autocapitalize: "off" });
    const label = h("label", {}, h("span", {}, prompt || "Input"), field);
    const form = h("form", { class: "input" }, label, h("button", { type: "submit", class: "small" }, "Send"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.answer(form, field, prompt, password);
    });
    this.input = form;
    this.prompt = prompt;
    this.outputs.element.after(form);
    this.stand("asking", "Waits for input");
    announce(`The cell asks: ${prompt}`);
    const active = document.activeElement;
    // Not out of a line that is being written.
    if (active === null || active === document.body || active.closest(".cm-content") !== null) field.focus();
  }

  private async answer(form: HTMLFormElement, field: HTMLInputElement, prompt: string, password: boolean): Promise<void> {
    const line = field.value;
    field.disabled = true;
    // Before the request: what the cell says to it comes on another connection.
    const echo = this.outputs.say(`${prompt}${password ? "••••••" : line}`, "answered");
    this.echoed = form;
    try {
      await request(`/v1/runs/${encodeURIComponent(this.id ?? "")}/input`, { method: "POST", body: { line } });
    } catch (error) {
      echo.remove();
      this.echoed = null;
      if (!(error instanceof Problem && error.code === "conflict")) {
        notify(`The line was not sent: ${words(error)}`, "error");
        field.disabled = false;
        field.focus();
        return;
      }
    }
    if (this.input === form) this.answered();
  }

  private answered(): void {
    const form = this.input;
    if (form === null) return;
    const focused = form.contains(document.activeElement) || form === this.echoed;
    if (form !== this.echoed) this.outputs.say(this.prompt, "answered");
    form.remove();
    this.input = null;
    if (this.ended) return;
    this.stand("running", "Running");
    if (focused) this.around.focus();
  }
}

/** Long text in parts, between which the browser may draw. */
function pieces(output: Output): Output[] {
  if (output.type !== "stdout" && output.type !== "stderr") return [output];
  const found: Output[] = [];
  for (let at = 0; at < output.text.length; at += PIECE) found.push({ ...output, text: output.text.slice(at, at + PIECE) });
  return found;
}
