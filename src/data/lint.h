// `instruct data lint`: everything about a data set that would spoil a run, found before it.
//
// Errors are what would train nothing or the wrong thing; warnings what is probably a mistake; notes what is good to
// know. docs/data.md lists the checks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/value.h"
#include "data/encode.h"

namespace instruct::data {

enum class Severity { kError, kWarning, kNote };
std::string_view severity_name(Severity severity);

struct Finding {
  std::string check;  // short name: "unreadable", "zero-mask", "duplicate", ...
  Severity severity = Severity::kWarning;
  std::string message;
  std::int64_t count = 0;
  std::vector<std::int64_t> rows;  // numbers of the rows concerned, all of them
};

struct LengthSummary {
  std::int64_t minimum = 0, median = 0, p90 = 0, p95 = 0, p99 = 0, maximum = 0;
  double mean = 0;
};
// Quantiles by the nearest rank. Empty input gives zeros.
LengthSummary summary_of(std::vector<std::int64_t> lengths);

struct OverflowLine {
  std::int64_t cutoff = 0;
  std::int64_t rows = 0;    // longer than it
  std::int64_t tokens = 0;  // of those rows, beyond it
};

struct LintReport {
  std::string origin;
  std::string format;
  std::int64_t rows = 0;
  bool has_lengths = false;  // whether a model was given
  std::int64_t tokens = 0;
  std::int64_t trained_tokens = 0;
  LengthSummary row_lengths, answer_lengths;  // tokens; answers: trained ones
  std::vector<OverflowLine> overflow;
  std::vector<std::pair<std::string, std::int64_t>> verbs;  // rows a verb, in order of appearance
  std::vector<Finding> findings;                            // errors first

  bool has_errors() const;
};

struct LintOptions {
  EncodeOptions encode;
  double near = 0.8;  // similarity from which questions count as nearly the same
};

// `problems`: rows that could not be read (from open_dataset). `held_out`: null, or rows that training must not
// contain. `encoder`: null when no model is given; then checks that need a tokenizer or an instruction set are left
// out.
LintReport lint(const Dataset& dataset, const std::vector<RowProblem>& problems, const Dataset* held_out,
                const RowEncoder* encoder, const LintOptions& options);

// For people, and for programs (docs/data.md has the keys).
std::string lint_text(const LintReport& report);
Value lint_value(const LintReport& report);

}  // namespace instruct::data
