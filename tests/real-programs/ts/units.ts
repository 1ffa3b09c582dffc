export enum Unit {
  Centimetre = "cm",
  Metre = "m",
}

const perSquareCentimetre: Record<Unit, number> = {
  [Unit.Centimetre]: 1,
  [Unit.Metre]: 1 / 10_000,
};

/** Writes an area, given in square centimetres, in `unit`. */
export function format(area: number, unit: Unit): string {
  return `${(area * perSquareCentimetre[unit]).toFixed(2)} ${unit}²`;
}
