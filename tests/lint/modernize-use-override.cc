struct Base {
  virtual ~Base() = default;
  virtual void run();
};
struct Derived : Base {
  virtual void run();  // expect
};
