// Cold starts: how long a new process needs to the first token of an answer, part by part.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/value.h"
#include "instructions/dialogue.h"
#include "models/package.h"
#include "ops/engine.h"

namespace instruct::bench {

struct LoadBenchOptions {
  std::filesystem::path model;   // as for open_package
  std::int64_t repeats = 5;      // processes; medians count
  bool drop_file_cache = false;  // each process finds the model on disk only
};

// Starts this command again with `--started-at NANOSECONDS` (of the steady clock) behind its words, once a repeat; each
// of these processes prints what cold_start() gave. Object with "parts" (list of part and seconds), first_token_seconds
// (median, least and most), process_seconds (to the end of the process), weight_bytes, memory_bytes_per_second,
// limit_share (reading the weights from memory, over the time of loading them and of the first token; from disk over
// all the time to the first token), disk_bytes_per_second where the files were dropped, peak_rss_bytes. Raises an error
// of the category that a started process ended with; its message is on standard error.
Value bench_load(ops::Engine& engine, const LoadBenchOptions& options);

// What a process has open when it answers, and how long that took.
struct Opened {
  ops::Engine& engine;
  const models::Package& package;
  const instructions::DialogueEncoder& dialogue;
  double chat_template_seconds = 0;
};
// Answers `prompt` with one token, in a process that was started at `started_at` and has done nothing else. Object with
// the seconds of each part, bytes of weights, tokens of the prompt.
Value cold_start(const Opened& opened, const std::string& prompt, std::int64_t started_at);

}  // namespace instruct::bench
