// Inside a sandboxed frame: shows one bundle of user code's output. All in here is at the mercy of that output; nothing that the
// page relies on is in here. The page sends what is to be shown and gets a height, a number, back.

export interface Told {
  kind: "html" | "javascript" | "library";
  value: unknown;
  /** Defines `show` (libraries.d.ts). */
  library: string | null;
  /** It has colours of its own, made for a light ground. */
  light: boolean;
}

type Show = (value: unknown, root: HTMLElement, dark: boolean) => unknown;

// No policy closes WebRTC, which could speak to other hosts: it is taken away. That it cannot be had back by a frame within this one is
// why scripts are evaluated here instead of being allowed in HTML: in a frame of `srcdoc`, which has our policy, none begins to run.
for (const name of ["RTCPeerConnection", "webkitRTCPeerConnection", "RTCDataChannel", "WebTransport"]) Reflect.deleteProperty(window, name);

const root = document.createElement("div");
const home = window.parent;
const send = home.postMessage.bind(home);
const evaluate = eval; // by another name it works on the global scope
const CLASSIC = /^(?:|text\/javascript|application\/javascript|text\/ecmascript)$/;
const PACE = 16; // milliseconds between two heights
const RESERVED = new Set("break case catch class const continue debugger default delete do else enum export extends false finally for function if import in instanceof new null return super switch this throw true try typeof var void while with yield let static await async of implements interface package private protected public arguments eval".split(" "));
let running: HTMLScriptElement | null = null;
let height = -1;
let excess = 0;
let grown = 0;
let pacing = false;
let shown = false;

Object.defineProperty(document, "currentScript", { get: () => running });
// After the document has loaded it would begin another one, without us.
document.write = (...texts: string[]) => {
  const template = document.createElement("template");
  template.innerHTML = texts.join("");
  handlers(template.content);
  if (running?.isConnected) running.before(template.content);
  else root.append(template.content);
};
document.writeln = (...texts: string[]) => document.write(...texts, "\n");
// Told once for each bundle, to those who have asked since.
for (const target of [window, document]) {
  const listen = target.addEventListener.bind(target) as (type: string, listener: EventListener, options?: AddEventListenerOptions | boolean) => void;
  Object.defineProperty(target, "addEventListener", {
    value: (type: string, listener: EventListener, options?: AddEventListenerOptions | boolean) => {
      const loading = type === "load" || type === "DOMContentLoaded";
      listen(type, listener, loading ? { ...(typeof options === "object" ? options : {}), once: true } : options);
    },
  });
}

function attempt(what: () => unknown): void {
  try {
    what();
  } catch (error) {
    console.warn(`in the script of an output: ${String(error)}`);
  }
}

/** HTML as a browser shows it, its scripts run in their order and its handlers set. */
function bring(html: string): void {
  const template = document.createElement("template");
  template.innerHTML = html;
  handlers(template.content);
  root.append(template.content);
  for (const script of root.querySelectorAll("script")) {
    if (script.src !== "" || !CLASSIC.test(script.type)) continue;
    running = script;
    const code = script.textContent ?? "";
    attempt(() => evaluate(code + shared(code)));
  }
  running = null;
  attempt(() => document.dispatchEvent(new Event("DOMContentLoaded", { bubbles: true })));
  attempt(() => window.dispatchEvent(new Event("load")));
  window.onload = null;
}

/** Code after a script's own that gives later scripts what it has declared with const, let and class: evaluated, each script has a
 * scope of its own for these. Names that are none of the outermost scope are undefined there, and left alone. */
function shared(code: string): string {
  if (code.length > 100_000 || !/\b(?:const|let|class)\b/.test(code)) return "";
  const names = [...new Set(code.match(/(?<![\w$.])[A-Za-z_$][\w$]*/g) ?? [])].filter((name) => !RESERVED.has(name)).slice(0, 2_000);
  const each = names.map((name) => `if (typeof ${name} !== "undefined" && !("${name}" in globalThis)) Object.defineProperty(globalThis, "${name}", { get: () => ${name}, set: value => { ${name} = value }, configurable: true });`);
  return `\n;{ ${each.join("\n")} }`;
}

function handlers(tree: ParentNode): void {
  for (const element of tree.querySelectorAll("*")) {
    for (const { name, value } of [...element.attributes]) {
      if (!/^on[a-z]+$/.test(name)) continue;
      element.removeAttribute(name);
      attempt(() => {
        const handler = new Function("event", value) as (this: Element, event: Event) => unknown;
        element.addEventListener(name.slice(2), (event) => {
          if (handler.call(element, event) === false) event.preventDefault();
        });
      });
    }
  }
}

async function show({ kind, value, library, light }: Told): Promise<void> {
  if (library !== null && !("show" in window)) evaluate(library);
  document.documentElement.classList.toggle("light", light);
  root.replaceChildren();
  try {
    if (kind === "html") {
      bring(String(value));
    } else if (kind === "javascript") {
      (new Function("element", String(value)) as (element: HTMLElement) => void)(root);
    } else {
      const dark = matchMedia("(prefers-color-scheme: dark)").matches;
      const html = await (window as unknown as { show: Show }).show(value, root, dark);
      if (typeof html === "string") bring(html);
    }
  } catch (error) {
    const note = document.createElement("p");
    note.className = "failed";
    note.textContent = `This could not be drawn: ${String(error)}`;
    root.append(note);
  }
  // Links lead nowhere from here; this way it can at least be seen where they would.
  for (const link of root.querySelectorAll("a[href]:not([title])")) link.setAttribute("title", link.getAttribute("href") ?? "");
  shown = true;
  measure();
}

function measure(): void {
  // Before, it would be taken for an answer.
  if (!shown) return;
  const page = document.documentElement;
  const bar = page.scrollWidth > page.clientWidth ? 16 : 0;
  const now = Math.ceil(page.getBoundingClientRect().height) + bar;
  if (now === height || pacing) return;
  // What is as high as its window (100vh) grows by the same each time that it gets what it asked for.
  const more = now - window.innerHeight;
  grown = window.innerHeight === height && more > 0 && more === excess ? grown + 1 : 0;
  excess = more;
  if (grown >= 3) return;
  height = now;
  send(now, "*");
  pacing = true;
  setTimeout(() => {
    pacing = false;
    measure();
  }, PACE);
}

window.addEventListener("message", (event) => {
  if (event.source === home) void show(event.data as Told);
});
document.body.append(root);
// Handlers in what scripts add later.
new MutationObserver((changes) => {
  grown = 0;
  if (changes.some(({ addedNodes }) => addedNodes.length > 0)) handlers(root);
}).observe(root, { childList: true, subtree: true });
new ResizeObserver(measure).observe(document.documentElement);
