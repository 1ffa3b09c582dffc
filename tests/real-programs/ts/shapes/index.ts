import { format, type Unit } from "../units";
import type { Shape } from "./shape";

export { Circle, Rectangle, type Shape } from "./shape";

export function describe(shape: Shape, unit: Unit): string {
  return `${shape.name}: ${format(shape.area(), unit)}`;
}

/** The item for which `measure` is greatest; the first of several. */
export function largest<T>(items: readonly T[], measure: (item: T) => number): T | undefined {
  let best: T | undefined;
  for (const item of items) {
    if (best === undefined || measure(item) > measure(best)) {
      best = item;
    }
  }
  return best;
}
