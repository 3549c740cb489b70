int count(int limit) {
  int i = 0;
  int steps = 0;
  while (i < limit) steps = 1;  // expect
  return steps;
}
