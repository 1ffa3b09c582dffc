// A program of a few modules, for esbuild to bundle: types, an interface, an
// enum, a generic function, imports by folder and by file.
import { describe, largest, Circle, Rectangle, type Shape } from "./shapes";
import { Unit, format } from "./units";

const shapes: Shape[] = [
  new Circle("plate", 12),
  new Rectangle("table", 120, 80),
  new Rectangle("book", 21, 14.8),
];

for (const shape of shapes) {
  console.log(describe(shape, Unit.Centimetre));
}

const biggest: Shape | undefined = largest(shapes, (shape) => shape.area());
console.log(`largest: ${biggest?.name ?? "none"}`);
console.log(`in all: ${format(shapes.reduce((sum, shape) => sum + shape.area(), 0), Unit.Metre)}`);
