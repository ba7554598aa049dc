/** The curves: each step's loss and its mean over the last steps, the held-out losses, and the best of these. */
import "./language";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Course } from "../views";

const HEIGHT = 220;

export class CourseChart {
  #plot: uPlot | null = null;
  #course: Course = { losses: [], steps: 1, evaluations: [], best: null, stoppedEarly: false };
  #drawn = 0;

  constructor(private readonly box: HTMLElement) {
    new ResizeObserver(() => this.#plot?.setSize({ width: box.clientWidth, height: HEIGHT })).observe(box);
    // A canvas does not follow the style sheet by itself.
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.#plot?.destroy();
      this.#plot = null;
      this.#draw();
    });
  }

  show(course: Course): void {
    this.#course = course;
    cancelAnimationFrame(this.#drawn);
    this.#drawn = requestAnimationFrame(() => this.#draw());
  }

  #draw(): void {
    const { losses, steps, evaluations, best } = this.#course;
    // Before the first step there is an evaluation, and no loss.
    const x = Array.from({ length: losses.length + 1 }, (_, i) => i);
    const heldOut = x.map((): number | null => null);
    for (const { step, loss } of evaluations) heldOut[step] = loss;
    const mean = trailingMean(losses, Math.max(1, Math.round(steps / 15)));
    const data: uPlot.AlignedData = [
      x,
      [null, ...losses],
      [null, ...mean],
      heldOut,
      x.map((step) => (step === best?.step ? best.loss : null)),
    ];
    this.#plot ??= new uPlot(this.#options(), data, this.box);
    this.#plot.setData(data);
    this.box.setAttribute("aria-label", summary(this.#course));
  }

  #options(): uPlot.Options {
    const style = getComputedStyle(this.box);
    const colour = (name: string): string => style.getPropertyValue(name).trim();
    const axis = {
      stroke: colour("--muted"),
      font: "12px system-ui, sans-serif",
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { stroke: colour("--line"), width: 1 },
    };
    const second = colour("--second");
    return {
      width: this.box.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      cursor: { show: false },
      scales: { x: { time: false, range: () => [0, Math.max(2, this.#course.steps)] } },
      axes: [
        { ...axis, size: 30, space: 56, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000] },
        { ...axis, size: 44 },
      ],
      series: [
        {},
        { stroke: colour("--curve-faint"), width: 1, points: { show: false } },
        { stroke: colour("--accent"), width: 2.5, points: { show: false } },
        { stroke: second, width: 2, spanGaps: true, points: { show: true, size: 6, fill: second } },
        { stroke: second, width: 0, points: { show: true, size: 14, width: 2.5, fill: "transparent" } },
      ],
    };
  }
}

function trailingMean(values: readonly number[], window: number): number[] {
  let sum = 0;
  return values.map((value, i) => {
    sum += value - (i >= window ? values[i - window]! : 0);
    return sum / Math.min(i + 1, window);
  });
}

function summary({ losses, evaluations, best }: Course): string {
  if (losses.length === 0) return "Loss curve, empty until training starts.";
  const held =
    best && evaluations.length > 0
      ? ` Held-out loss: ${evaluations[0]!.loss.toFixed(2)} at step ${evaluations[0]!.step}, ` +
        `${evaluations.at(-1)!.loss.toFixed(2)} at step ${evaluations.at(-1)!.step}, best ${best.loss.toFixed(2)} at ` +
        `step ${best.step}.`
      : "";
  return (
    `Loss curve: ${losses[0]!.toFixed(2)} at step 1, ${losses.at(-1)!.toFixed(2)} at step ${losses.length}.` + held
  );
}
