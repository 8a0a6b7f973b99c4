// The page: which session is shown (the fragment of the address names it), what the buttons do, the key.

import { askForKeyBy, key, save, sessionPath, words } from "./api";
import { notify, part } from "./dom";
import { Files } from "./files";
import { narrow } from "./frames";
import { confirmed, fresh, Sessions } from "./sessions";
import { restart, SessionView } from "./session_view";

const LOOK = 4_000; // milliseconds between looks at what others have done

narrow();

askForKeyBy((wrong) => {
  const dialog = part<HTMLDialogElement>("key-dialog");
  const field = part<HTMLInputElement>("key-field");
  const said = part("key-said");
  said.textContent = wrong ? "This key is not valid." : "";
  field.value = "";
  if (!dialog.open) dialog.showModal();
  let given = "";
  // There is nothing to see without it. A browser that does not know closedby="none" closes a dialog at the second Escape, whoever prevents it.
  const again = (): void => {
    if (given === "") setTimeout(() => dialog.showModal());
  };
  dialog.addEventListener("close", again);
  return new Promise((resolve) => {
    const submit = (event: Event): void => {
      event.preventDefault();
      const written = field.value.trim();
      if (!/^[\x21-\x7e]+$/.test(written)) {
        said.textContent = "A key is letters, digits and signs, without blanks.";
        return;
      }
      part("key-form").removeEventListener("submit", submit);
      field.value = "";
      given = written;
      dialog.removeEventListener("close", again);
      dialog.close();
      part("forget-key").hidden = false;
      resolve(given);
    };
    part("key-form").addEventListener("submit", submit);
  });
});
part("key-dialog").addEventListener("cancel", (event) => event.preventDefault());
part("forget-key").hidden = key.get() === null;
part("forget-key").addEventListener("click", () => {
  key.forget();
  location.reload();
});

let refreshing: ReturnType<typeof setTimeout> | undefined;
const sessions = new Sessions(() => (location.hash = fresh()));
const files = new Files(sessions);
const view = new SessionView(sessions, () => {
  clearTimeout(refreshing);
  refreshing = setTimeout(() => {
    void sessions.refresh(view.id).catch(() => undefined);
    void files.refresh();
  }, 100);
});

function asked(): string {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

function show(): void {
  const id = asked();
  if (!/^[A-Za-z0-9][A-Za-z0-9._~:@-]{0,127}$/.test(id)) {
    location.replace(`#${sessionStorage.getItem("cellrun-session") ?? fresh()}`);
    return;
  }
  sessionStorage.setItem("cellrun-session", id);
  part("session-name").textContent = id;
  drawers(null);
  files.show(id);
  void view.open(id).then(() => files.refresh());
  // On a phone it would bring up the keyboard.
  if (matchMedia("(pointer: fine)").matches) view.focus();
}

window.addEventListener("hashchange", show);

setInterval(() => {
  if (document.hidden && !view.live || key.get() === null && part<HTMLDialogElement>("key-dialog").open) return;
  sessions.refresh(view.id).then(() => view.look()).catch(() => undefined);
}, LOOK);

part("restart").addEventListener("click", () => {
  void confirmed("Restart the kernel?", "Variables will be gone, files stay.", "Restart it").then((yes) => {
    if (yes) void restart(view.id);
  });
});
part("notebook").addEventListener("click", () => {
  save(`${sessionPath(view.id)}/notebook`, `${view.id}.ipynb`).catch((error: unknown) => notify(`There is no notebook: ${words(error)}`, "error"));
});

// On narrow screens the two lists are drawers.
function drawers(open: string | null): void {
  for (const name of ["sessions", "files"]) {
    const is = name === open;
    part(name).classList.toggle("open", is);
    part(`show-${name}`).setAttribute("aria-expanded", String(is));
  }
}
for (const name of ["sessions", "files"]) {
  part(`show-${name}`).addEventListener("click", () => drawers(part(name).classList.contains("open") ? null : name));
}

document.querySelector("main")?.addEventListener("pointerdown", () => drawers(null));

part("show-help").addEventListener("click", () => part<HTMLDialogElement>("help").showModal());
document.addEventListener("keydown", (event) => {
  const writing = event.target instanceof HTMLElement && event.target.closest("input, .cm-content, dialog") !== null;
  if (event.defaultPrevented) return; // the editor's
  if (event.key === "." && event.ctrlKey) {
    event.preventDefault();
    void view.stop();
  } else if (event.key === "Escape") {
    drawers(null);
  } else if (!writing && event.key === "?") {
    part<HTMLDialogElement>("help").showModal();
  } else if (!writing && event.key === "Enter" && event.target === document.body) {
    event.preventDefault();
    view.focus();
  }
});

part("skip").addEventListener("click", (event) => {
  event.preventDefault();
  view.focus();
});

show();
