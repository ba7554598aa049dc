/**
 * Narrow. y[i][j] = x[i][start + j], j < length: a run of columns (torch.narrow).
 * Backward: dx[i][start + j] += dy[i][j].
 * x, dx: [rows, width]. y, dy: [rows, length]. start + length <= width.
 */
import { addForward } from "./elementwise";

export function narrowForward(y: usize, x: usize, rows: i32, width: i32, start: i32, length: i32): void {
  const xRow = <usize>width << 2, yRow = <usize>length << 2;
  x += <usize>start << 2;
  for (let i = 0; i < rows; i++) {
    memory.copy(y, x, yRow);
    y += yRow;
    x += xRow;
  }
}

export function narrowBackward(dx: usize, dy: usize, rows: i32, width: i32, start: i32, length: i32): void {
  const xRow = <usize>width << 2, yRow = <usize>length << 2;
  dx += <usize>start << 2;
  for (let i = 0; i < rows; i++) {
    addForward(dx, dx, dy, length);
    dy += yRow;
    dx += xRow;
  }
}
