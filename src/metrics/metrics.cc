#include "metrics/metrics.h"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>

#include "base/error.h"
#include "base/random.h"
#include "base/text.h"

namespace instruct::metrics {
namespace {

const std::vector<std::string>& known_metrics() {
  static const std::vector<std::string> names{"bleu",      "rouge1", "rouge2",  "rougeL", "rougeLsum",
                                              "chrf",      "chrf++", "em",      "f1",     "accuracy",
                                              "precision", "recall", "macro_f1"};
  return names;
}

using Rows = std::vector<std::size_t>;
// The metric over a selection of rows, repeats allowed: what the bootstrap resamples.
using OverRows = std::function<double(const Rows&)>;

template <typename Counts>
OverRows pooled(std::vector<Counts> counts, std::function<double(const Counts&)> score) {
  return [counts = std::move(counts), score = std::move(score)](const Rows& rows) {
    Counts total;
    for (const std::size_t row : rows) total.add(counts[row]);
    return score(total);
  };
}

OverRows mean(std::vector<double> values) {
  return [values = std::move(values)](const Rows& rows) {
    double sum = 0;
    for (const std::size_t row : rows) sum += values[row];
    return rows.empty() ? 0.0 : 100.0 * sum / static_cast<double>(rows.size());
  };
}

class Evaluation {
 public:
  Evaluation(std::span<const std::string> hypotheses, std::span<const std::vector<std::string>> references,
             const MetricOptions& options)
      : hypotheses_(hypotheses), references_(references), options_(options) {}

  OverRows metric(const std::string& name) const {
    if (name == "bleu") {
      std::vector<BleuCounts> counts;
      for (std::size_t i = 0; i < hypotheses_.size(); ++i)
        counts.push_back(bleu_counts(hypotheses_[i], references_[i], options_.tokenizer, options_.lowercase));
      return pooled<BleuCounts>(std::move(counts), bleu_score);
    }
    if (name.starts_with("chrf")) {
      std::vector<ChrfCounts> counts;
      for (std::size_t i = 0; i < hypotheses_.size(); ++i) counts.push_back(best_chrf(i, name == "chrf++" ? 2 : 0));
      return pooled<ChrfCounts>(std::move(counts), [](const ChrfCounts& total) { return chrf_score(total); });
    }
    if (name == "accuracy") {
      return mean(best([](const std::string& h, const std::string& r) { return trim(h) == trim(r) ? 1.0 : 0.0; }));
    }
    if (name == "precision" || name == "recall" || name == "macro_f1") return by_label(name);
    const RougeOptions& rouge = options_.rouge;
    if (name == "rouge1" || name == "rouge2") {
      return mean(best([&, n = name == "rouge1" ? 1 : 2](const std::string& h, const std::string& r) {
        return rouge_n(h, r, n, rouge).f1;
      }));
    }
    if (name == "rougeL")
      return mean(best([&](const std::string& h, const std::string& r) { return rouge_l(h, r, rouge).f1; }));
    if (name == "rougeLsum")
      return mean(best([&](const std::string& h, const std::string& r) { return rouge_l_sum(h, r, rouge).f1; }));
    if (name == "em")
      return mean(best([](const std::string& h, const std::string& r) { return exact_match(h, r) ? 1.0 : 0.0; }));
    return mean(best([](const std::string& h, const std::string& r) { return token_f1(h, r).f1; }));
  }

 private:
  // As sacreBLEU: each row counts with its best reference, the first of equals.
  ChrfCounts best_chrf(std::size_t row, int word_order) const {
    ChrfCounts best;
    double most = -1;
    for (const std::string& reference : references_[row]) {
      ChrfCounts counts = chrf_counts(hypotheses_[row], reference, word_order);
      if (const double score = chrf_score(counts); score > most) {
        most = score;
        best = std::move(counts);
      }
    }
    return best;
  }

  std::vector<double> best(const std::function<double(const std::string&, const std::string&)>& score) const {
    std::vector<double> values;
    for (std::size_t i = 0; i < hypotheses_.size(); ++i) {
      double most = 0;
      for (const std::string& reference : references_[i]) most = std::max(most, score(hypotheses_[i], reference));
      values.push_back(most);
    }
    return values;
  }

  // Macro average over the labels of either side; a label never predicted has precision 0.
  OverRows by_label(const std::string& name) const {
    return [this, name](const Rows& rows) {
      struct Counts {
        double right = 0, predicted = 0, actual = 0;
      };
      std::map<std::string_view, Counts> labels;
      for (const std::size_t row : rows) {
        const std::string_view predicted = trim(hypotheses_[row]);
        const std::string_view actual = trim(references_[row].front());
        ++labels[predicted].predicted;
        ++labels[actual].actual;
        if (predicted == actual) ++labels[actual].right;
      }
      double sum = 0;
      for (const auto& [label, count] : labels) {
        const double precision = count.predicted > 0 ? count.right / count.predicted : 0;
        const double recall = count.actual > 0 ? count.right / count.actual : 0;
        const double f1 = precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0;
        sum += name == "precision" ? precision : name == "recall" ? recall : f1;
      }
      return labels.empty() ? 0.0 : 100.0 * sum / static_cast<double>(labels.size());
    };
  }

  std::span<const std::string> hypotheses_;
  std::span<const std::vector<std::string>> references_;
  const MetricOptions& options_;
};

// Percentile bootstrap (Koehn, 2004): the same resamples for every metric.
std::pair<double, double> interval_of(const OverRows& metric, std::size_t rows, const MetricOptions& options) {
  std::vector<double> values;
  for (std::int64_t sample = 0; sample < options.bootstrap; ++sample) {
    RandomStream random(options.seed, RandomPurpose::kBootstrap, static_cast<std::uint64_t>(sample));
    Rows chosen(rows);
    for (std::size_t& row : chosen) row = random.next_below(rows);
    values.push_back(metric(chosen));
  }
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1) + 0.5)];
  };
  return {at(0.025), at(0.975)};
}

}  // namespace

std::vector<std::string> expand_metric_names(std::span<const std::string> names) {
  std::vector<std::string> result;
  const auto add = [&](const std::string& name) {
    if (std::find(result.begin(), result.end(), name) == result.end()) result.push_back(name);
  };
  for (const std::string& name : names) {
    if (name == "rouge") {
      for (const char* part : {"rouge1", "rouge2", "rougeL", "rougeLsum"}) add(part);
    } else if (std::find(known_metrics().begin(), known_metrics().end(), name) != known_metrics().end()) {
      add(name);
    } else {
      raise(ErrorCategory::kInvalidArgument, "unknown metric '{}'{}", name, did_you_mean(name, known_metrics()));
    }
  }
  return result;
}

std::vector<MetricValue> evaluate_metrics(std::span<const std::string> names, std::span<const std::string> hypotheses,
                                          std::span<const std::vector<std::string>> references,
                                          const MetricOptions& options) {
  if (hypotheses.empty() || hypotheses.size() != references.size()) {
    raise(ErrorCategory::kInvalidArgument, "{} hypotheses for {} references", hypotheses.size(), references.size());
  }
  const Evaluation evaluation(hypotheses, references, options);
  Rows all(hypotheses.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  std::vector<MetricValue> values;
  for (const std::string& name : expand_metric_names(names)) {
    const OverRows metric = evaluation.metric(name);
    MetricValue value{.name = name, .value = metric(all), .interval = std::nullopt};
    if (options.bootstrap > 0) value.interval = interval_of(metric, hypotheses.size(), options);
    values.push_back(std::move(value));
  }
  return values;
}

std::string bleu_signature(const MetricOptions& options, std::size_t references) {
  constexpr const char* kNames[] = {"13a", "intl", "zh", "char", "none"};
  return fmt::format("nrefs:{}|case:{}|eff:no|tok:{}|smooth:exp", references, options.lowercase ? "lc" : "mixed",
                     kNames[static_cast<int>(options.tokenizer)]);
}

}  // namespace instruct::metrics
