#include "cli/results.h"

#include "base/file.h"
#include "base/json.h"

namespace instruct::cli {

void write_predictions(const std::filesystem::path& file, const evaluate::TaskReport& report,
                       const instructions::InstructionSet* set) {
  std::string lines;
  for (const evaluate::AnsweredRow& row : report.answers) {
    Value line = Value::object({{"row", row.row},
                                {"verb", row.verb},
                                {"prompt", row.prompt},
                                {"predict", row.answer},
                                {"label", row.has_reference ? Value(row.reference) : Value()},
                                {"logprob", row.log_probability},
                                {"finished", row.finished}});
    if (!row.adapter.empty()) line.set("adapter", row.adapter);
    if (!row.label_probabilities.empty()) {
      Value probabilities = Value::object(), log_probabilities = Value::object();
      const std::vector<std::string>& labels = set->instruction(row.verb).output.labels;
      for (std::size_t i = 0; i < labels.size(); ++i) {
        probabilities.set(labels[i], row.label_probabilities[i]);
        log_probabilities.set(labels[i], row.label_log_probabilities[i]);
      }
      line.set("probabilities", probabilities);
      line.set("logprobs", log_probabilities);
    }
    if (!row.spans.is_null()) line.set("spans", row.spans);
    lines += dump_json(line) + "\n";
  }
  write_file_atomic(file, lines);
}

}  // namespace instruct::cli
