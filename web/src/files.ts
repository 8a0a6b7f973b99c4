// The files of the session: listed, dropped in, saved, removed.

import { filePath, json, Problem, request, save, sessionPath, words } from "./api";
import { h, notify, part, size } from "./dom";
import { confirmed, type Sessions } from "./sessions";
import type { FileState } from "./wire";

const MOST = 500;

export class Files {
  private session = "";
  private folder = "";
  private turn = 0;
  private readonly list = part<HTMLUListElement>("file-list");

  constructor(private readonly sessions: Sessions) {
    const chooser = part<HTMLInputElement>("file-chooser");
    part("upload").addEventListener("click", () => chooser.click());
    chooser.addEventListener("change", () => {
      void this.upload([...(chooser.files ?? [])]).then(() => (chooser.value = ""));
    });
    const over = part("drop");
    // Only files: text that is dragged into the editor is the editor's.
    const has = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
    document.addEventListener("dragover", (event) => {
      if (!has(event)) return;
      event.preventDefault();
      over.hidden = false;
    }, true);
    document.addEventListener("dragleave", (event) => {
      if (event.relatedTarget === null) over.hidden = true;
    });
    document.addEventListener("drop", (event) => {
      over.hidden = true;
      if (!has(event)) return;
      event.preventDefault();
      event.stopPropagation();
      const folder = [...(event.dataTransfer?.items ?? [])].map((item) => item.webkitGetAsEntry()).find((entry) => entry?.isDirectory);
      if (folder) notify(`“${folder.name}” is a folder, and only files are uploaded: pack it into one, a .zip for instance.`, "error");
      else void this.upload([...(event.dataTransfer?.files ?? [])]);
    }, true);
  }

  show(session: string): void {
    this.folder = "";
    this.session = session;
    this.list.replaceChildren();
  }

  async refresh(): Promise<void> {
    const { session, folder } = this;
    const turn = ++this.turn;
    let files: FileState[] = [];
    let said = "No files yet. Drop some here.";
    try {
      if (this.sessions.has(session)) files = (await json<{ files: FileState[] }>(`${sessionPath(session)}/files?path=${encodeURIComponent(folder)}`)).files;
    } catch (error) {
      if (!(error instanceof Problem)) return;
      if (error.code === "not_found" && folder !== "") {
        this.folder = "";
        return this.refresh();
      }
      if (error.code !== "not_found") said = error.message;
    }
    if (turn !== this.turn) return;
    part("folder").textContent = folder === "" ? "" : `/${folder}`;
    const items = files.slice(0, MOST).map((file) => this.item(file));
    if (folder !== "") items.unshift(h("li", {}, this.opener("..", folder.split("/").slice(0, -1).join("/"))));
    if (files.length > MOST) items.push(h("li", { class: "note" }, `and ${files.length - MOST} more`));
    if (files.length === 0) items.push(h("li", { class: "note" }, folder === "" ? said : "This folder is empty."));
    this.list.replaceChildren(...items);
  }

  private item({ path, size: bytes, is_dir }: FileState): HTMLLIElement {
    const name = path.split("/").at(-1) ?? path;
    const open = is_dir ? this.opener(`${name}/`, path) : h("button", { type: "button", class: "name", title: `Save ${name}`, click: () => void this.save(path, name) }, name);
    const remove = h("button", { type: "button", class: "quiet", title: "Remove", "aria-label": `Remove ${name}`, click: () => void this.remove(path, name) }, "×");
    return h("li", {}, open, h("span", { class: "size" }, bytes === null || is_dir ? "" : size(bytes)), remove);
  }

  private opener(name: string, folder: string): HTMLButtonElement {
    return h("button", { type: "button", class: "name folder", click: () => {
      this.folder = folder;
      void this.refresh();
    } }, name);
  }

  private async upload(files: File[]): Promise<void> {
    const { session, folder } = this;
    let sent = 0;
    for (const file of files) {
      notify(`Uploading ${file.name}, ${size(file.size)} …`);
      try {
        await request(filePath(session, folder === "" ? file.name : `${folder}/${file.name}`), { method: "PUT", file });
        this.sessions.add(session);
        sent += 1;
      } catch (error) {
        notify(`${file.name} was not uploaded: ${words(error)}`, "error");
        break;
      }
    }
    if (sent > 0 && sent === files.length) notify(sent === 1 ? `${files[0]?.name ?? "It"} is there.` : `${sent} files are there.`);
    if (session === this.session) await this.refresh();
  }

  private async save(path: string, name: string): Promise<void> {
    try {
      await save(filePath(this.session, path), name);
    } catch (error) {
      notify(`${name} was not saved: ${words(error)}`, "error");
    }
  }

  private async remove(path: string, name: string): Promise<void> {
    if (!(await confirmed(`Remove “${name}”?`, "It cannot be had back.", "Remove it"))) return;
    try {
      await request(filePath(this.session, path), { method: "DELETE" });
    } catch (error) {
      notify(`${name} was not removed: ${words(error)}`, "error");
    }
    await this.refresh();
  }
}
