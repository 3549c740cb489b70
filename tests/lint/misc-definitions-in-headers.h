#pragma once

int doubled(int x) { return x + x; }  // expect
