// `instruct data`: lint, show, convert and split rows.
#include <unistd.h>

#include <CLI/CLI.hpp>

#include <cstdlib>
#include <iostream>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "data/clue.h"
#include "data/convert.h"
#include "data/lint.h"
#include "data/show.h"
#include "instructions/output_encoder.h"
#include "models/package.h"

namespace instruct::cli {
namespace {

namespace fs = std::filesystem;

// What encoding rows takes: tokenizer and template of a model (its weights are not read), and an instruction set.
struct EncoderOptions {
  std::string model;
  std::string instructions;
  std::string chat_template;
  std::string overflow = "raise";
  data::EncodeOptions encode;

  void add_to(CLI::App& command, bool need_model) {
    CLI::Option* option = command.add_option("--model,-m", model, "GGUF file or Hugging Face folder");
    if (need_model) option->required();
    command.add_option("--instructions,-i", instructions, "instruction set (*.iset.yaml)");
    command.add_option("--chat-template", chat_template, "template file used instead of the model's own");
    command.add_option("--cutoff-len", encode.cutoff, "tokens a row may have")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    command.add_option("--overflow", overflow, "what becomes of longer rows: drop, split, left or raise")
        ->capture_default_str();
    command.add_option("--shots", encode.shots, "examples of the instruction set before each row")
        ->check(CLI::NonNegativeNumber);
    command.add_option("--seed", encode.seed, "of the choice among a verb's templates")->capture_default_str();
    command.add_flag("--mask-history", encode.mask.mask_history, "train the last answer of a dialogue only");
    command.add_flag("--train-on-prompt", encode.mask.train_on_prompt, "train every token");
  }
};

class Encoder {
 public:
  explicit Encoder(const EncoderOptions& options) : allocator_(tensor::make_host_allocator()) {
    if (!options.instructions.empty()) set_ = instructions::load_instruction_set(options.instructions);
    if (options.model.empty()) return;
    package_ = models::open_package(options.model, models::PackageParts::kTokenizer, {}, *allocator_);
    dialogue_ = dialogue_of(package_, options.chat_template);
    rows_ = std::make_unique<data::RowEncoder>(*dialogue_, set());
  }
  const instructions::InstructionSet* set() const { return set_ ? &*set_ : nullptr; }
  const data::RowEncoder* rows() const { return rows_.get(); }  // null without a model

 private:
  std::shared_ptr<tensor::Allocator> allocator_;
  std::optional<instructions::InstructionSet> set_;
  models::Package package_;
  std::unique_ptr<instructions::DialogueEncoder> dialogue_;
  std::unique_ptr<data::RowEncoder> rows_;
};

struct Source {
  std::string data;
  std::string dataset_dir;
  void add_to(CLI::App& command) {
    command.add_option("data", data, "rows (.jsonl, .json, .csv), or a name of dataset_info.json")->required();
    command.add_option("--dataset-dir", dataset_dir, "folder of dataset_info.json");
  }
};

// A terminal whose user has not asked for plain text (no-color.org).
bool wants_colour() {
  const char* refused = std::getenv("NO_COLOR");
  return isatty(STDOUT_FILENO) == 1 && (refused == nullptr || *refused == '\0');
}

// What was written where, as a message or as JSON.
Value written(std::size_t rows, const std::string& file) {
  return Value::object({{"file", file}, {"rows", static_cast<std::int64_t>(rows)}});
}

void add_lint(CLI::App& parent) {
  struct Options {
    Source source;
    EncoderOptions encoder;
    std::string held_out;
    bool json = false, strict = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = parent.add_subcommand("lint", "Find what would spoil a training run");
  options->source.add_to(*command);
  options->encoder.add_to(*command, false);
  command->add_option("--eval", options->held_out, "evaluation rows, which training must not contain");
  command->add_flag("--json", options->json, "print one JSON object");
  command->add_flag("--strict", options->strict, "fail on warnings too");
  command->footer(
      "\nExample:\n  instruct data lint train.jsonl --model M.gguf --instructions notes.iset.yaml --eval test.jsonl\n\n"
      "Without a model only the texts are checked. Exit code 3 when there are errors.");
  command->callback([options] {
    std::vector<data::RowProblem> problems;
    const data::Dataset dataset = data::open_dataset(options->source.data, options->source.dataset_dir, &problems);
    std::optional<data::Dataset> held_out;
    if (!options->held_out.empty()) held_out = data::open_dataset(options->held_out, options->source.dataset_dir);
    const Encoder encoder(options->encoder);
    data::LintOptions lint{.encode = options->encoder.encode};
    lint.encode.overflow = data::overflow_from_name(options->encoder.overflow);
    const data::LintReport report =
        data::lint(dataset, problems, held_out ? &*held_out : nullptr, encoder.rows(), lint);
    std::cout << (options->json ? dump_json(data::lint_value(report)) + "\n" : data::lint_text(report)) << std::flush;
    const bool warned = std::any_of(report.findings.begin(), report.findings.end(),
                                    [](const data::Finding& f) { return f.severity == data::Severity::kWarning; });
    if (report.has_errors() || (options->strict && warned))
      raise(ErrorCategory::kBadData, "{} has {}", options->source.data, report.has_errors() ? "errors" : "warnings");
  });
}

// Rows of examples as an encoder sees them.
std::vector<data::ShownRow> shown_texts(const data::Dataset& dataset, std::span<const std::int64_t> indices,
                                        const EncoderOptions& options) {
  const auto allocator = tensor::make_host_allocator();
  const models::Package package = models::open_package(options.model, models::PackageParts::kTokenizer, {}, *allocator);
  const bool texts = options.instructions.empty();
  const instructions::InstructionSet set =
      texts ? instructions::InstructionSet() : instructions::load_instruction_set(options.instructions);
  const data::TextEncoder encoder(*package.tokenizer, set);
  const data::TextOptions text{.cutoff = options.encode.cutoff,
                               .overflow = data::overflow_from_name(options.overflow),
                               .seed = options.encode.seed};
  data::TextReport report;
  std::vector<data::ShownRow> shown;
  for (const data::TextRow& row : texts ? encoder.encode_texts(dataset, indices, text, report)
                                        : encoder.encode_all(dataset, indices, text, report)) {
    const data::Example& example = dataset.examples[static_cast<std::size_t>(row.example)];
    const std::string output = example.output.is_null() ? "" : instructions::output_text(example.output);
    shown.push_back(data::shown_text(dataset.where(example), row, output, *package.tokenizer));
  }
  return shown;
}

void add_show(CLI::App& parent) {
  struct Options {
    Source source;
    EncoderOptions encoder;
    std::vector<std::int64_t> rows;
    std::int64_t count = 3;
    std::string html;
    std::string colour = "auto";
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = parent.add_subcommand("show", "Rows as the model sees them, with what is trained marked");
  options->source.add_to(*command);
  options->encoder.add_to(*command, true);
  command->add_option("--row", options->rows, "row numbers (default: the first rows)");
  command->add_option("--count", options->count, "how many of the first rows")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--html", options->html, "write a page to this file");
  command->add_option("--colour,--color", options->colour, "auto, always or never")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "always", "never"}));
  command->footer("\nExample:\n  instruct data show train.jsonl --model M.gguf --row 17 --html row17.html");
  command->callback([options] {
    const data::Dataset dataset = data::open_dataset(options->source.data, options->source.dataset_dir);
    std::vector<std::int64_t> chosen;
    std::vector<std::int64_t> missing = options->rows;
    for (const std::int64_t index : data::row_indices(dataset)) {
      const auto asked =
          std::find(missing.begin(), missing.end(), dataset.examples[static_cast<std::size_t>(index)].row);
      if (options->rows.empty() ? static_cast<std::int64_t>(chosen.size()) >= options->count : asked == missing.end())
        continue;
      if (asked != missing.end()) missing.erase(asked);
      chosen.push_back(index);
    }
    if (!missing.empty())
      raise(ErrorCategory::kNotFound, "{}: there is no row {}", options->source.data, missing.front());
    const Encoder encoder(options->encoder);
    std::vector<data::ShownRow> shown;
    if (models::is_encoder(options->encoder.model)) {
      shown = shown_texts(dataset, chosen, options->encoder);
    } else {
      for (const std::int64_t index : chosen) {
        const data::Example& example = dataset.examples[static_cast<std::size_t>(index)];
        shown.push_back(
            {dataset.where(example), encoder.rows()->encode_dialogue(dataset, example, options->encoder.encode)});
      }
    }
    const tokenizers::Tokenizer& tokenizer = encoder.rows()->dialogue().tokenizer();
    if (!options->html.empty()) {
      write_file_atomic(options->html, data::show_html(shown, tokenizer));
      log_info("wrote {}", options->html);
      return;
    }
    const bool colour = options->colour == "always" || (options->colour == "auto" && wants_colour());
    for (const data::ShownRow& row : shown) {
      std::cout << data::show_row(row, tokenizer, colour ? data::Colour::kAlways : data::Colour::kNever) << '\n';
    }
  });
}

void refuse_existing(const fs::path& path, bool overwrite) {
  if (!overwrite && fs::exists(path))
    raise(ErrorCategory::kInvalidArgument, "'{}' exists: choose another name, or --overwrite", path.string());
}

data::Dataset open_clue(const std::string& path, const std::string& task, const std::string& answers) {
  const data::ClueRows clue = data::read_clue(path, task, answers);
  log_info("{}: task {}, {} rows", path, data::clue_task_name(clue.task), clue.rows.size());
  if (!clue.unanswered.empty())
    log_warning("{}: {} rows left out, the first is row {}: their annotators did not agree on a label", path,
                clue.unanswered.size(), clue.unanswered.front());
  if (clue.unlabelled > 0) log_info("{} rows have no label, and so no output", clue.unlabelled);
  return data::parse_dataset(dump_json(Value(Value::Array(clue.rows.begin(), clue.rows.end()))), ".json", path);
}

void add_convert(CLI::App& parent) {
  struct Options {
    Source source;
    std::string output, format, instructions, from, answers;
    bool overwrite = false, json = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = parent.add_subcommand("convert", "Rows in another format or file type");
  options->source.add_to(*command);
  command->add_option("output", options->output, "file to write (.jsonl, .json, .csv)")->required();
  command->add_option("--to", options->format,
                      "instruction, alpaca, sharegpt, messages, prompt_completion or text "
                      "(with --from: instruction)");
  command->add_option("--from", options->from,
                      "the data is a CLUE or FewCLUE task file: clue, or the task (tnews, iflytek, csldcp, eprstmt, "
                      "ocnli, cmnli, bustm, afqmc, csl, cluewsc, chid)");
  command->add_option("--answers", options->answers, "the answer file of a ChID file");
  command->add_option("--instructions,-i", options->instructions, "instruction set that words instruction rows");
  command->add_flag("--overwrite", options->overwrite, "replace the file");
  command->add_flag("--json", options->json, "say what was written as JSON");
  command->footer(
      "\nExamples:\n  instruct data convert notes.jsonl notes.json --to sharegpt --instructions notes.iset.yaml"
      "\n  instruct data convert tnews/train.json tnews.jsonl --from clue");
  command->callback([options] {
    if (options->format.empty() && options->from.empty())
      raise(ErrorCategory::kInvalidArgument, "--to is required: the format of the rows to write");
    const data::RowFormat format = data::format_from_option(options->format.empty() ? "instruction" : options->format);
    refuse_existing(options->output, options->overwrite);
    if (options->from.empty() && !options->answers.empty())
      raise(ErrorCategory::kInvalidArgument, "--answers belongs to --from chid");
    const data::Dataset dataset = options->from.empty()
                                      ? data::open_dataset(options->source.data, options->source.dataset_dir)
                                      : open_clue(options->source.data, options->from, options->answers);
    const Encoder encoder({.instructions = options->instructions});
    const std::vector<Value> rows = data::convert_rows(dataset, format, encoder.set());
    data::write_rows(options->output, rows);
    if (options->json) {
      std::cout << dump_json(written(rows.size(), options->output)) << '\n';
    } else {
      log_info("wrote {} rows to {}", rows.size(), options->output);
    }
  });
}

void add_split(CLI::App& parent) {
  struct Options {
    std::string data, output = ".", parts = "train=0.9,test=0.1", by;
    std::uint64_t seed = 42;
    bool overwrite = false, json = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = parent.add_subcommand("split", "Cut a file into training, development and test rows");
  command->add_option("data", options->data, "rows (.jsonl, .json, .csv)")->required();
  command->add_option("--parts", options->parts, "names with shares or counts")->capture_default_str();
  command->add_option("--by", options->by, "field whose values must not be torn apart (a document, a customer)");
  command->add_option("--output,-o", options->output, "folder for NAME.EXT of each part")->capture_default_str();
  command->add_option("--seed", options->seed, "of the choice")->capture_default_str();
  command->add_flag("--overwrite", options->overwrite, "replace files");
  command->add_flag("--json", options->json, "say what was written as JSON");
  command->footer(
      "\nExample:\n  instruct data split all.jsonl --parts train=0.8,dev=100,test=200 --by package --output notes");
  command->callback([options] {
    const std::vector<data::Part> parts = data::parts_from_option(options->parts);
    const std::string extension = fs::path(options->data).extension().string();
    const auto file = [&](const data::Part& part) { return fs::path(options->output) / (part.name + extension); };
    for (const data::Part& part : parts) refuse_existing(file(part), options->overwrite);
    const std::vector<Value> rows = data::read_raw_rows(options->data);
    std::vector<std::string> keys;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const Value* key = options->by.empty() ? nullptr : rows[i].find(options->by);
      if (!options->by.empty() && key == nullptr)
        raise(ErrorCategory::kBadData, "{}: row {} has no field '{}'", options->data, rows[i].mark().line, options->by);
      keys.push_back(key == nullptr ? std::to_string(i) : dump_json(*key));
    }
    const auto chosen = data::split_rows(keys, parts, options->seed);
    fs::create_directories(options->output);
    Value report = Value::object();
    for (std::size_t p = 0; p < parts.size(); ++p) {
      std::vector<Value> part;
      for (const std::int64_t row : chosen[p]) part.push_back(rows[static_cast<std::size_t>(row)]);
      data::write_rows(file(parts[p]), part);
      report.set(parts[p].name, written(part.size(), file(parts[p]).string()));
      if (!options->json) log_info("wrote {} rows to {}", part.size(), file(parts[p]).string());
    }
    if (options->json) std::cout << dump_json(report) << '\n';
  });
}

}  // namespace

void add_data_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("data", "Check, look at, convert and split rows");
  command->require_subcommand(1);
  add_lint(*command);
  add_show(*command);
  add_convert(*command);
  add_split(*command);
  command->footer(
      "\nExamples:\n  instruct data lint train.jsonl --model M.gguf --eval test.jsonl\n"
      "  instruct data show train.jsonl --model M.gguf --count 5\n"
      "  instruct data split all.jsonl --parts train=0.9,test=0.1 --output notes");
}

}  // namespace instruct::cli
