export interface Shape {
  readonly name: string;
  /** In square centimetres. */
  area(): number;
}

export class Circle implements Shape {
  constructor(
    readonly name: string,
    private readonly radius: number,
  ) {}

  area(): number {
    return Math.PI * this.radius ** 2;
  }
}

export class Rectangle implements Shape {
  constructor(
    readonly name: string,
    private readonly width: number,
    private readonly height: number,
  ) {}

  area(): number {
    return this.width * this.height;
  }
}
