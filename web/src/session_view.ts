// The session that is shown: its runs, the oldest at the top, and the editor below them.

import { json, Problem, request, sessionPath, words } from "./api";
import { notify, part } from "./dom";
import { Editor } from "./editor";
import { pause } from "./follow";
import type { Displays } from "./outputs";
import { RunView, type Surroundings } from "./run_view";
import type { Sessions } from "./sessions";
import { ENDINGS, type RunState, type SessionState } from "./wire";

const SHOWN = 20; // runs that are loaded at once
const MOST = 60; // runs on the page; older ones go, and can be had back

const DRAFT = "cellrun-draft ";

type Detail = SessionState & { runs: RunState[] };

export class SessionView {
  id = "";
  private runs: RunView[] = [];
  private earlier: RunState[] = []; // not on the page; newest first
  private gone = new AbortController();
  private readonly unsent = new Map<RunView, AbortController>();
  private displays: Displays = new Map();
  private room = MOST;
  private following = true;
  private readonly editor: Editor;
  private readonly place = part("runs");
  private readonly scroller = part("scroller");
  private readonly more = part<HTMLButtonElement>("earlier");
  private readonly stopButton = part<HTMLButtonElement>("stop");

  /** `changed`: runs or files of the session may have. */
  constructor(
    private readonly sessions: Sessions,
    private readonly changed: () => void,
  ) {
    this.editor = new Editor(part("editor"), (code) => void this.run(code), () => void this.stop(), (code) => this.keep(code));
    document.addEventListener("visibilitychange", () => this.attend());
    part("run").addEventListener("click", () => {
      if (this.editor.code.trim() !== "") void this.run(this.editor.code);
      this.editor.focus();
    });
    this.stopButton.addEventListener("click", () => void this.stop());
    this.more.addEventListener("click", () => this.showEarlier());
    this.scroller.addEventListener("scroll", () => {
      this.following = this.scroller.scrollHeight - this.scroller.scrollTop - this.scroller.clientHeight < 80;
    }, { passive: true });
    new ResizeObserver(() => this.followEnd()).observe(this.place);
  }

  focus(): void {
    this.editor.focus();
  }

  /** Shows another session, or a new one of that name. */
  async open(id: string): Promise<void> {
    this.clear();
    this.id = id;
    this.editor.code = sessionStorage.getItem(DRAFT + id) ?? "";
    const { signal } = this.gone;
    for (let wait = 300; !signal.aborted; wait = Math.min(5_000, wait * 2)) {
      try {
        await this.sessions.refresh(id);
        const detail = await this.detail(signal);
        if (signal.aborted) return;
        this.editor.remember(detail.runs.flatMap((run) => run.code ?? []).reverse());
        const shown = detail.runs.slice(0, SHOWN).reverse();
        this.earlier = detail.runs.slice(SHOWN);
        for (const state of shown) this.add(state);
        break;
      } catch (error) {
        if (signal.aborted) return;
        notify(`The session could not be read: ${words(error)}`, "error");
        if (error instanceof Problem && error.status < 500 && error.status !== 429) break;
        await pause(wait, signal);
      }
    }
    this.refresh();
  }

  /** Runs that were started elsewhere appear. */
  async look(): Promise<void> {
    const { signal } = this.gone;
    const { id } = this;
    let detail = await this.detail(signal, false);
    if (signal.aborted || id !== this.id) return;
    const known = new Set([...this.runs.map((run) => run.id), ...this.earlier.map((run) => run.execution_id)]);
    // While nobody looks: what has ended is brought to its end.
    const ended = new Set(detail.runs.filter((run) => ENDINGS.includes(run.status)).map((run) => run.execution_id));
    if (document.hidden) this.runs.find((run) => run.live && ended.has(run.id ?? ""))?.attend();
    if (detail.runs.every((run) => known.has(run.execution_id))) return;
    detail = await this.detail(signal);
    if (signal.aborted || id !== this.id) return;
    for (const run of this.runs) known.add(run.id);
    // One of ours that has no id yet would be shown twice.
    const unsent = new Set(this.runs.filter((run) => run.id === null && !run.ended).map((run) => run.code));
    for (const state of [...detail.runs].reverse()) {
      if (!known.has(state.execution_id) && !unsent.has(state.code ?? null)) this.add(state);
    }
  }

  get live(): boolean {
    return this.runs.some((run) => run.live);
  }

  async stop(): Promise<void> {
    // The one that runs; those that wait for it go on, unless it is asked for again.
    const first = this.runs.find((run) => !run.ended && (run.live || run.id === null));
    if (first !== undefined && this.unsent.has(first)) this.takeBack(first);
    else await first?.interrupt();
  }

  private async detail(signal: AbortSignal, code = true): Promise<Detail> {
    const none: Detail = { id: this.id, state: "new", created: 0, used: 0, runs: [] };
    if (!this.sessions.has(this.id)) return none;
    try {
      return await json<Detail>(`${sessionPath(this.id)}${code ? "" : "?code=false"}`, { signal });
    } catch (error) {
      if (error instanceof Problem && error.code === "not_found") return none;
      throw error;
    }
  }

  /** It was not sent: its code is in the editor again. */
  private takeBack(view: RunView): void {
    this.unsent.get(view)?.abort();
    this.unsent.delete(view);
    this.runs.splice(this.runs.indexOf(view), 1);
    view.close();
    view.element.remove();
    if (this.editor.code.trim() === "") this.editor.code = view.code ?? "";
    this.editor.focus();
    this.refresh();
  }

  private keep(code: string): void {
    // Not what there is no room for.
    try {
      if (code === "") sessionStorage.removeItem(DRAFT + this.id);
      else sessionStorage.setItem(DRAFT + this.id, code);
    } catch {
      sessionStorage.removeItem(DRAFT + this.id);
    }
  }

  private async run(code: string): Promise<void> {
    this.following = true;
    this.editor.done(code);
    const path = `${sessionPath(this.id)}/runs`;
    const left = this.gone.signal;
    const view = new RunView(null, code, this.around(left));
    const back = new AbortController();
    const { signal } = back;
    this.unsent.set(view, back);
    this.append(view);
    // Sent again it does not run again.
    const name = crypto.getRandomValues(new Uint32Array(4)).join("-");
    for (let wait = 300; !left.aborted && !signal.aborted; wait = Math.min(5_000, wait * 2)) {
      try {
        const state = await json<RunState>(path, {
          signal,
          method: "POST",
          body: { code, wait: false },
          headers: { "Idempotency-Key": name },
        });
        this.sessions.add(state.session ?? this.id);
        this.unsent.delete(view);
        if (left.aborted || signal.aborted) return;
        view.id = state.execution_id;
        view.state = { ...state, code };
        view.connected(true);
        view.begin();
        return;
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Problem && error.code !== "draining" && error.status !== 429) {
          this.unsent.delete(view);
          view.gone(`It was not run: ${error.message}`);
          return;
        }
        view.connected(false, error instanceof Problem ? error.message : undefined);
        await pause(error instanceof Problem && error.wait > 0 ? error.wait * 1000 : wait, signal);
      }
    }
  }

  private add(state: RunState): void {
    const view = new RunView(state.execution_id, state.code ?? null, this.around(this.gone.signal));
    view.state = state;
    this.append(view);
    void view.load(state);
  }

  private append(view: RunView): void {
    // In the order in which they were asked for: those of another tab may be older than ours.
    const created = view.state?.created ?? Infinity;
    let at = this.runs.length;
    while (at > 0 && (this.runs[at - 1]?.state?.created ?? (view.state === null ? 0 : Infinity)) > created) at -= 1;
    this.place.insertBefore(view.element, this.runs[at]?.element ?? null);
    this.runs.splice(at, 0, view);
    while (this.runs.length > this.room) {
      const first = this.runs[0];
      if (first === undefined || !first.ended) break;
      this.runs.shift();
      first.close();
      first.element.remove();
      if (first.state !== null) this.earlier.unshift(first.state);
    }
    this.refresh();
    this.followEnd();
  }

  private showEarlier(): void {
    const states = this.earlier.splice(0, SHOWN);
    this.room += states.length;
    const before = this.scroller.scrollHeight - this.scroller.scrollTop;
    this.following = false;
    for (const state of states) {
      const view = new RunView(state.execution_id, state.code ?? null, this.around(this.gone.signal));
      this.runs.unshift(view);
      this.place.prepend(view.element);
      void view.load(state);
    }
    this.scroller.scrollTop = this.scroller.scrollHeight - before;
    this.refresh();
  }

  private clear(): void {
    this.gone.abort();
    this.gone = new AbortController();
    this.displays = new Map();
    this.runs = [];
    this.earlier = [];
    this.unsent.clear();
    this.room = MOST;
    this.following = true;
    this.place.replaceChildren();
    this.refresh();
  }

  private around(signal: AbortSignal): Surroundings {
    return {
      displays: this.displays,
      signal,
      edit: (code) => {
        this.editor.code = code;
        this.editor.focus();
      },
      focus: () => this.editor.focus(),
      propose: (code) => {
        if (this.editor.code.trim() === "") this.editor.code = code;
      },
      changed: () => {
        if (signal.aborted) return;
        this.refresh();
        this.changed();
      },
    };
  }

  private refresh(): void {
    const alive = this.runs.some((run) => !run.ended);
    this.stopButton.disabled = !alive;
    part("empty").hidden = this.runs.length > 0;
    this.more.hidden = this.earlier.length === 0;
    this.more.textContent = `Earlier runs (${this.earlier.length})`;
    this.attend();
    document.title = `${alive ? "● " : ""}${this.id} – cellrun`;
  }

  /** The events of the oldest run that has not ended come, while somebody looks: those after it wait for it. A stream takes one of
   * the six connections that a browser has for a host. */
  private attend(): void {
    const live = this.runs.filter((run) => run.live);
    const first = document.hidden ? undefined : live[0];
    live.forEach((run, index) => {
      if (run === first) return run.attend();
      run.release();
      if (index > 0) run.waits(index);
    });
  }

  private followEnd(): void {
    if (this.following) this.scroller.scrollTop = this.scroller.scrollHeight;
  }
}

/** Restarts the kernel of a session. */
export async function restart(session: string): Promise<void> {
  try {
    await request(`${sessionPath(session)}/restart`, { method: "POST" });
    notify("The kernel was restarted: variables are gone, files are there.");
  } catch (error) {
    notify(`The kernel was not restarted: ${words(error)}`, "error");
  }
}
