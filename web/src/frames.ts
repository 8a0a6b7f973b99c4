// The page's side of sandboxed frames, the only place where HTML, SVG, scripts and drawings of user code are brought to life.
// docs/decisions/0020-frames-for-output.md says what holds them. From a frame the page takes a height, a number, and nothing else.

import { h } from "./dom";
import type { Told } from "./frame/frame";

// Where the build has put them.
declare const FRAME: string;
declare const LIBRARIES: Record<Library, string>;

export type Library = "markdown" | "plotly" | "vega";

const HIGHEST = 4000; // pixels; of more, the frame scrolls by itself
const ALIVE = 24; // frames at a time; those out of sight are let go first, and come back when they are looked at
const MOST = 200; // messages of one frame in a second; ours sends no more than 62
const SILENCE = 5_000; // milliseconds in which a frame says its height, once it knows what to show

const FLOODED = "This output was stopped: it sent messages without end.";
const STOLEN = "This output was stopped: it took the keyboard without being asked.";
const SILENT = "This output does not answer. A script in it, or in another output, may run without end; or the page is older than the service: then reload it.";

// What could take the focus without being asked, or run what does. Text that only looks like it costs a click.
const TAKES_FOCUS = /<\s*(script|iframe|frame|object|embed|svg|math|dialog|template)|\bon\w+\s*=|autofocus|srcdoc|javascript:/i;

const texts = new Map<Library, Promise<string>>();
const alive = new Set<Frame>();
const byWindow = new Map<MessageEventSource, Frame>();

// Its name says what is in it, so that the browser may take it from its cache.
function text(library: Library): Promise<string> {
  let found = texts.get(library);
  if (found === undefined) {
    found = fetch(LIBRARIES[library], { credentials: "omit", redirect: "error" }).then((response) => {
      if (!response.ok) throw new Error(`${response.status}`);
      return response.text();
    });
    found.catch(() => texts.delete(library));
    texts.set(library, found);
  }
  return found;
}

window.addEventListener("message", (event) => {
  if (event.source !== null) byWindow.get(event.source)?.hear(event.data);
});

const sight = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) (target as Held).frame?.seen(isIntersecting);
  },
  { rootMargin: "800px 0px" },
);

// Who goes on with something else leaves the frame; then it may not take the focus, and what is typed, back.
let awake: Frame | null = null;
for (const type of ["pointerdown", "focusin"]) {
  document.addEventListener(type, (event) => {
    if (awake !== null && !awake.element.contains(event.target as Node)) awake.sleep();
  }, true);
}

// `inert` alone does not keep a script in another process from taking the focus.
let focused: Element | null = null;
document.addEventListener("focusin", (event) => {
  if (event.target instanceof HTMLElement && !(event.target instanceof HTMLIFrameElement)) focused = event.target;
}, true);
window.addEventListener("blur", () => {
  const taken = document.activeElement;
  if (!(taken instanceof HTMLIFrameElement) || !taken.inert) return;
  taken.closest<Held>(".frame")?.frame?.stop(STOLEN);
  if (focused instanceof HTMLElement && focused.isConnected) focused.focus();
});

interface Held extends HTMLDivElement {
  frame?: Frame;
}

export class Frame {
  readonly element: Held = h("div", { class: "frame", tabindex: "0", role: "group", "aria-label": "Output" });
  private frame: HTMLIFrameElement | null = null;
  private loaded = false;
  private inSight = false;
  private height = 40;
  private sizing = false;
  private drawing = false;
  private stopped = false;
  private second = 0;
  private heard = 0;
  private silence: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private told: Told,
    private readonly library: Library | null,
  ) {
    this.element.frame = this;
    this.element.addEventListener("pointerdown", () => this.wake());
    this.element.addEventListener("focus", () => this.wake());
    sight.observe(this.element);
    this.element.style.height = `${this.height}px`;
  }

  /** Shows something else of the same kind in its place. */
  update(told: Told): void {
    this.told = told;
    if (this.loaded && !this.drawing) {
      this.drawing = true;
      setTimeout(() => {
        this.drawing = false;
        void this.send();
      }, 50);
    }
  }

  close(): void {
    sight.unobserve(this.element);
    this.rest();
  }

  seen(inSight: boolean): void {
    this.inSight = inSight;
    if (inSight && !this.stopped) this.live();
  }

  /** What comes from a hostile place: anything, any number of times. */
  hear(said: unknown): void {
    const now = performance.now();
    if (now - this.second > 1000) {
      this.second = now;
      this.heard = 0;
    }
    this.heard += 1;
    if (this.heard > MOST) return this.stop(FLOODED);
    if (typeof said !== "number" || !Number.isFinite(said)) return;
    this.answered();
    this.height = Math.min(HIGHEST, Math.max(8, Math.round(said)));
    if (this.sizing) return;
    this.sizing = true;
    requestAnimationFrame(() => {
      this.sizing = false;
      this.element.style.height = `${this.height}px`;
    });
  }

  /** The focus may go into it. What runs no script of its own is always awake: drawings of the libraries, which answer the pointer, and
   * HTML like that of tables, which are scrolled and copied from. */
  private wake(): void {
    if (awake !== this) awake?.sleep();
    awake = this;
    if (this.frame !== null) this.frame.inert = false;
  }

  sleep(): void {
    if (awake === this) awake = null;
    if (this.frame !== null) this.frame.inert = !this.harmless;
  }

  private get harmless(): boolean {
    if (this.told.kind === "library") return this.library !== "markdown" || !TAKES_FOCUS.test(String(this.told.value));
    return this.told.kind === "html" && !TAKES_FOCUS.test(String(this.told.value));
  }

  private live(): void {
    alive.delete(this);
    alive.add(this);
    if (this.frame !== null) return;
    for (const other of alive) {
      if (alive.size <= ALIVE) break;
      if (!other.inSight) other.rest();
    }
    const frame = h("iframe", { sandbox: "allow-scripts", title: "Output", loading: "eager", referrerpolicy: "no-referrer" });
    frame.inert = !this.harmless && awake !== this;
    frame.addEventListener("load", () => {
      // Once: if the frame has gone elsewhere by itself, it is told nothing any more.
      if (this.frame !== frame || this.loaded) return;
      this.loaded = true;
      void this.send();
    });
    frame.src = FRAME;
    this.frame = frame;
    this.element.classList.remove("note-only", "silent");
    this.element.replaceChildren(frame);
    if (frame.contentWindow !== null) byWindow.set(frame.contentWindow, this);
    this.expect();
  }

  private async send(): Promise<void> {
    const frame = this.frame;
    clearTimeout(this.silence);
    try {
      const library = this.library === null ? null : await text(this.library);
      if (frame === null || frame !== this.frame) return;
      // The frame has no origin that could be named; that it is where we have sent it is held by frame-src.
      frame.contentWindow?.postMessage({ ...this.told, library }, "*");
      if (this.heard === 0) this.expect();
    } catch {
      this.stop("What draws this could not be loaded.");
    }
  }

  private expect(): void {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      this.element.classList.add("silent");
      this.element.append(this.note(SILENT));
    }, SILENCE);
  }

  private answered(): void {
    clearTimeout(this.silence);
    if (!this.element.classList.contains("silent")) return;
    this.element.classList.remove("silent");
    this.element.querySelector(".note")?.remove();
  }

  /** A note in its place, until it is asked for again. */
  stop(why: string): void {
    this.rest();
    this.stopped = true;
    this.element.classList.remove("silent");
    this.element.classList.add("note-only");
    this.element.replaceChildren(this.note(why));
  }

  private note(why: string): HTMLElement {
    const again = h("button", { type: "button", class: "small", click: () => this.again() }, "Show again");
    return h("p", { class: "note" }, `${why} `, again);
  }

  /** All frames share a process, which ends with the last of them; with it a script without end in whichever one. */
  private again(): void {
    for (const other of [...alive]) {
      if (other !== this && other.element.classList.contains("silent")) other.stop(SILENT);
      else other.rest();
    }
    this.rest();
    this.stopped = false;
    // Once the process has ended; until then a frame would get the same one.
    setTimeout(() => {
      this.live();
      for (const held of document.querySelectorAll<Held>(".frame")) {
        if (held.frame?.inSight === true && !held.frame.stopped) held.frame.live();
      }
    }, 300);
  }

  private rest(): void {
    alive.delete(this);
    clearTimeout(this.silence);
    if (awake === this) awake = null;
    if (this.frame === null) return;
    if (this.frame.contentWindow !== null) byWindow.delete(this.frame.contentWindow);
    this.frame.remove();
    this.frame = null;
    this.loaded = false;
    this.second = 0;
    this.heard = 0;
  }
}

/** After the page has loaded, frames may go to the address of the frame and to no other: the header, which does not know under
 * what name it is reached, says `frame-src 'self'`; both hold. A policy has no way to name an IPv6 address (CSP 3, host-source):
 * there the header holds alone. */
export function narrow(): void {
  if (location.hostname.startsWith("[")) return;
  const policy = document.createElement("meta");
  policy.httpEquiv = "Content-Security-Policy";
  policy.content = `frame-src ${new URL(FRAME, location.href).href}`;
  document.head.append(policy);
}
