/** The loss curve: each step's loss, and its mean over the last steps. */
import "./language";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

const HEIGHT = 220;

export class LossChart {
  #plot: uPlot | null = null;
  #losses: readonly number[] = [];
  #steps = 1;
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

  /** @param steps how many there will be */
  show(losses: readonly number[], steps: number): void {
    this.#losses = losses;
    this.#steps = steps;
    cancelAnimationFrame(this.#drawn);
    this.#drawn = requestAnimationFrame(() => this.#draw());
  }

  #draw(): void {
    const x = this.#losses.map((_, i) => i + 1);
    const data: uPlot.AlignedData = [
      x,
      [...this.#losses],
      trailingMean(this.#losses, Math.max(1, Math.round(this.#steps / 15))),
    ];
    this.#plot ??= new uPlot(this.#options(), data, this.box);
    this.#plot.setData(data);
    this.box.setAttribute("aria-label", summary(this.#losses));
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
    return {
      width: this.box.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      cursor: { show: false },
      scales: { x: { time: false, range: () => [1, Math.max(2, this.#steps)] } },
      axes: [
        { ...axis, size: 30, space: 56, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000] },
        { ...axis, size: 44 },
      ],
      series: [
        {},
        { stroke: colour("--curve-faint"), width: 1, points: { show: false } },
        { stroke: colour("--accent"), width: 2.5, points: { show: false } },
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

function summary(losses: readonly number[]): string {
  if (losses.length === 0) return "Loss curve, empty until training starts.";
  return `Loss curve: ${losses[0]!.toFixed(2)} at step 1, ${losses.at(-1)!.toFixed(2)} at step ${losses.length}.`;
}
