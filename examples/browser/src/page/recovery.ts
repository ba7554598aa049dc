/** A saved run that does not open: what shall become of it. Nothing is deleted unasked. */
import { printable } from "../format";
import type { RunView, Trouble } from "../views";
import { $, announce, show } from "./dom";
import type { Host } from "./host";
import type { Stage } from "./stage";

export class Recovery {
  /**
   * @param goOn gets the run that was saved before
   * @param openAgain opens everything anew
   */
  constructor(
    private readonly stage: Stage,
    host: Host,
    goOn: (run: RunView) => Promise<void>,
    openAgain: () => Promise<void>,
  ) {
    this.#on("recover-before", async () => goOn((await host.call((studio) => studio.recover("before")))!));
    this.#on("recover-delete", async () => {
      await host.call((studio) => studio.recover("delete"));
      stage.enter("idle");
    });
    $("recover-again").addEventListener("click", () => {
      this.hide();
      void stage.attempt(() => "broken", openAgain);
    });
  }

  ask({ sentence, before, mayPass }: Trouble): void {
    this.stage.enter("held");
    show("recovery-text", printable(sentence));
    show("recover-before", `Go on from step ${before}`);
    $("recover-before").hidden = before === null;
    $("recover-again").hidden = !mayPass;
    $("recovery").hidden = false;
    announce(sentence);
  }

  hide(): void {
    $("recovery").hidden = true;
  }

  #on(id: string, act: () => Promise<void>): void {
    $(id).addEventListener("click", () => {
      void this.stage.attempt(
        () => "held",
        async () => {
          await act();
          this.hide();
          $("go").focus();
        },
      );
    });
  }
}
