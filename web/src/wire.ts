// What the service says: docs/reference/wire.md and docs/reference/service.md.

export type Bundle = Record<string, unknown>;
export interface BlobName {
  sha256: string;
  size: number;
  encoding: "base64" | "text" | "json";
}

/** Something shown: large values are named in `blobs` instead of being in `data`. */
export interface Shown {
  data: Bundle;
  metadata?: Bundle;
  blobs?: Record<string, BlobName>;
  display_id?: string | null;
}

export type Ending = "ok" | "error" | "timeout" | "interrupted" | "kernel_died";

export type Event = { seq: number; execution_id: string } & (
  | { type: "queued"; position: number }
  | { type: "started"; execution_count: number | null }
  | { type: "stdout" | "stderr"; text: string }
  | ({ type: "display" | "display_update" | "execute_result" } & Shown)
  | { type: "clear_output"; wait: boolean }
  | { type: "input_request"; prompt: string; password: boolean }
  | { type: "error_output"; name: string; value: string; traceback: string }
  | { type: "output_dropped"; reason: string; detail: string }
  | { type: "kernel_restarted"; reason: string }
  | { type: "comm" }
  | { type: "payload"; source: string; content: Bundle }
  | { type: "finished"; status: Ending; duration: number; reason: string | null; files: string[] | null }
);

export type Output =
  | { type: "stdout" | "stderr"; text: string }
  | ({ type: "display" | "execute_result" | "page" } & Shown)
  | { type: "omission"; stdout: number; stderr: number; displays: number }
  | { type: "error"; name: string; value: string; traceback: string };

export interface Result {
  execution_id: string;
  status: Ending;
  outputs: Output[];
  execution_count: number | null;
  duration: number;
  reason: string | null;
  restarted: string | null;
  dropped: string[];
  payloads: Bundle[];
}

/** `code` is there in the list of a session's runs; null where it is long. */
export interface RunState {
  execution_id: string;
  session: string | null;
  status: Ending | "queued" | "running" | "waiting_for_input";
  created: number;
  last: number;
  code?: string | null;
}

export interface SessionState {
  id: string;
  state: "new" | "idle" | "running";
  created: number;
  used: number;
}

export interface FileState {
  path: string;
  size: number | null;
  modified: number;
  is_dir: boolean;
}

export const ENDINGS: readonly string[] = ["ok", "error", "timeout", "interrupted", "kernel_died"];
