// The list of sessions: switch, make, end.

import { json, request, sessionPath, words } from "./api";
import { h, notify, part } from "./dom";
import type { SessionState } from "./wire";

const SAID = { new: "no kernel", idle: "idle", running: "running" };

export class Sessions {
  private readonly list = part<HTMLUListElement>("session-list");
  private shown = "";
  private readonly ids = new Set<string>();

  /** `ended`: the session on the page is no more. */
  constructor(private readonly ended: () => void) {
    part("new-session").addEventListener("click", () => (location.hash = fresh()));
  }

  /** Whether it was there when they were last listed. What is not is made by its first use, and has neither runs nor files. */
  has(id: string): boolean {
    return this.ids.has(id);
  }

  add(id: string): void {
    this.ids.add(id);
  }

  async refresh(current: string): Promise<void> {
    const { sessions } = await json<{ sessions: SessionState[] }>("/v1/sessions");
    this.ids.clear();
    for (const { id } of sessions) this.ids.add(id);
    const all = sessions.some(({ id }) => id === current) ? sessions : [{ id: current, state: "new" as const, created: Date.now() / 1000, used: 0 }, ...sessions];
    all.sort((one, other) => other.created - one.created);
    const told = JSON.stringify([current, all.map(({ id, state }) => [id, state])]);
    if (told === this.shown) return;
    this.shown = told;
    const focused = (document.activeElement as HTMLElement | null)?.dataset["of"];
    this.list.replaceChildren(...all.map((session) => this.item(session, session.id === current)));
    if (focused !== undefined) this.list.querySelector<HTMLElement>(`[data-of="${CSS.escape(focused)}"]`)?.focus();
  }

  private item({ id, state }: SessionState, current: boolean): HTMLLIElement {
    const link = h("a", { href: `#${encodeURIComponent(id)}`, class: "name", "data-of": `go ${id}` }, id);
    if (current) link.setAttribute("aria-current", "page");
    const remove = h("button", { type: "button", class: "quiet", title: "End this session", "aria-label": `End the session ${id}`, "data-of": `end ${id}` }, "×");
    remove.addEventListener("click", () => void this.end(id, current));
    return h("li", { "data-state": state }, link, h("span", { class: "kernel" }, SAID[state]), remove);
  }

  private async end(id: string, current: boolean): Promise<void> {
    if (!(await confirmed(`End the session “${id}”?`, "Its kernel, its variables and its files will be gone.", "End it"))) return;
    try {
      await request(sessionPath(id), { method: "DELETE" });
    } catch (error) {
      notify(`The session was not ended: ${words(error)}`, "error");
      return;
    }
    if (current) this.ended();
    else await this.refresh(decodeURIComponent(location.hash.slice(1))).catch(() => undefined);
  }
}

/** A name that nobody has. */
export function fresh(): string {
  const letters = "abcdefghijkmnpqrstuvwxyz23456789";
  return `s-${Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => letters[byte % letters.length]).join("")}`;
}

export function confirmed(question: string, detail: string, yes: string): Promise<boolean> {
  const dialog = part<HTMLDialogElement>("confirm");
  part("confirm-question").textContent = question;
  part("confirm-detail").textContent = detail;
  part("confirm-yes").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
