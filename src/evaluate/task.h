// Evaluation of a model on rows: generated answers, metrics a verb, likelihood of the references.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "data/encode.h"
#include "evaluate/responder.h"
#include "evaluate/score.h"
#include "metrics/metrics.h"

namespace instruct::evaluate {

struct TaskOptions {
  std::vector<std::string> metrics;  // empty: those of each verb, or rouge and bleu
  std::int64_t max_new_tokens = 0;   // 0: those of each verb, or 256
  std::int64_t shots = 0;
  std::int64_t limit = 0;         // rows; 0: all
  bool generate = true;           // answers, and the metrics that compare them with the references
  bool likelihood = false;        // also the mean log-probability and perplexity of the references
  std::int64_t bootstrap = 1000;  // resamples for the intervals; 0: none
  std::uint64_t seed = 42;
  // Names of the adapters::AdapterSet on the model: each of them answers every row, all in one batch. Empty: no set.
  std::vector<std::string> adapters = {};
  ResponderOptions responder;  // greedy and constrained by default
  metrics::MetricOptions metric;
};

struct AnsweredRow {
  std::string adapter;   // its name, of several
  std::int64_t row = 0;  // number in the file
  std::string verb;      // empty for dialogues
  std::string prompt;    // as the model got it, special tokens written out
  std::string answer;
  std::string reference;
  bool has_reference = true;   // false where no row has an output: answered, but not judged
  double log_probability = 0;  // of the generated answer
  bool finished = false;       // ended by itself
  std::vector<double> label_probabilities, label_log_probabilities;  // as Reply
  Value spans;  // of an encoder: where the parts of the answer are (instructions::found_spans_value), or null
};

struct VerbReport {
  std::string adapter;  // its name, of several
  std::string verb;     // "" for dialogues; "all" when several verbs were evaluated together
  std::int64_t rows = 0;
  std::vector<metrics::MetricValue> metrics;
  // With likelihood only:
  double loss = 0;          // mean -log P a token of the references, or a unit of what a head learns
  std::int64_t tokens = 0;  // of the references, or units
  double perplexity = 0;    // of tokens
};

struct TaskReport {
  std::vector<VerbReport> verbs;  // by adapter, then by name; only verbs with rows that have references
  std::vector<AnsweredRow> answers;
  double seconds = 0;
  generate::LookupCounts counts;
};

// Answers every row and measures the answers. `on_done` gets the number of answered rows.
TaskReport evaluate_rows(ops::Engine& engine, models::LanguageModel& model,
                         const instructions::DialogueEncoder& dialogue, const instructions::InstructionSet* set,
                         const data::Dataset& dataset, const TaskOptions& options,
                         const std::function<void(std::int64_t)>& on_done = {});

// The answers of one verb against their references, as `names` measure them.
VerbReport measure_answers(const std::string& verb, const std::vector<std::string>& names,
                           const std::vector<const AnsweredRow*>& rows, const TaskOptions& options);

// Mean loss over all verbs' tokens; with likelihood only.
double mean_loss(const TaskReport& report);

// Names of the metrics each verb of the rows will have, without measuring anything.
std::map<std::string, std::vector<std::string>> metrics_by_verb(const instructions::InstructionSet* set,
                                                                const data::Dataset& dataset,
                                                                const TaskOptions& options);

// A table of the report for a terminal.
std::string report_table(const TaskReport& report);
// {"verb": {...}, ...} with metric names to values, intervals as name_low and name_high; of several adapters,
// {"adapter": {"verb": {...}, ...}, ...}.
Value report_value(const TaskReport& report);

}  // namespace instruct::evaluate
