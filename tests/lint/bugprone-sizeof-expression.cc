struct Table {
  unsigned long bytes() const { return sizeof(this); }  // expect
  double cells[8];
};
