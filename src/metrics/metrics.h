// Metrics by name over a set of answers, with bootstrap intervals.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "metrics/bleu.h"
#include "metrics/rouge.h"

namespace instruct::metrics {

struct MetricOptions {
  BleuTokenizer tokenizer = BleuTokenizer::k13a;
  bool lowercase = false;
  RougeOptions rouge;
  std::int64_t bootstrap = 0;  // resamples; 0: no intervals
  std::uint64_t seed = 0;
};

struct MetricValue {
  std::string name;
  double value = 0;                                   // 0 to 100
  std::optional<std::pair<double, double>> interval;  // 95%
};

// "rouge" stands for rouge1, rouge2, rougeL and rougeLsum. Raises InvalidArgument naming the nearest metric.
std::vector<std::string> expand_metric_names(std::span<const std::string> names);

// bleu is of the corpus; rouge*, em and f1 are means of rows; accuracy, precision, recall and macro_f1 take each text
// as a label (macro averages over the labels seen). references[i] holds one or more for row i: bleu counts
// them together, precision, recall and macro_f1 take the first, the others the best. Values in the order of the names.
std::vector<MetricValue> evaluate_metrics(std::span<const std::string> names, std::span<const std::string> hypotheses,
                                          std::span<const std::vector<std::string>> references,
                                          const MetricOptions& options = {});

// sacreBLEU-style description of how bleu was computed.
std::string bleu_signature(const MetricOptions& options, std::size_t references);

}  // namespace instruct::metrics
