/** Files that a visitor picks or drops. */
import type { Stage } from "./stage";

/** Files dropped on `zone` go where those of its file button go. */
export function acceptFiles(
  stage: Stage,
  input: HTMLInputElement,
  zone: HTMLElement,
  take: (files: readonly File[]) => Promise<void>,
): void {
  const act = (files: FileList | undefined | null): void => {
    if (!files?.length || input.disabled) return;
    const list = [...files];
    stage.try(() => take(list));
  };
  input.addEventListener("change", () => {
    act(input.files);
    // The same file may be chosen again.
    input.value = "";
  });
  zone.addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    zone.classList.add("over");
  });
  for (const type of ["dragleave", "drop"]) zone.addEventListener(type, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    act(event.dataTransfer.files);
  });
}
