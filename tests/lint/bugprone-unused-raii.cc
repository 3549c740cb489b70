struct Guard {
  explicit Guard(int level);
  ~Guard();
};
void work();
void run() {
  Guard(1);  // expect
  work();
}
