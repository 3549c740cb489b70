#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <iostream>

#include "base/cancel.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/text_session.h"

namespace instruct::cli {
namespace {

struct Options {
  TextSessionOptions session;
  std::string data, field = "text";
  std::string pooling = "auto";
  std::int64_t max_length = 0;
  std::int64_t batch_tokens = 4096;
  bool plain = false;
};

bool is_rows(const std::string& path) {
  const std::string extension = std::filesystem::path(path).extension().string();
  return extension == ".jsonl" || extension == ".json" || extension == ".csv";
}

// The texts of a file: a field of its rows, or its lines.
std::vector<std::string> texts_of(const Options& options) {
  std::vector<std::string> texts;
  if (!is_rows(options.data)) {
    const std::string content = read_file(options.data);
    for_each_line(content, [&](std::string_view line, std::int64_t) { texts.emplace_back(line); });
    return texts;
  }
  for (const Value& row : data::read_raw_rows(options.data)) {
    const Value* text = row.find(options.field);
    if (text == nullptr || !text->is_string()) {
      std::vector<std::string> known;
      if (row.is_object()) {
        for (const auto& [key, value] : row.as_object()) known.push_back(key);
      }
      raise(ErrorCategory::kBadData, "{}: row {} has no text field '{}'{} (--field)", options.data, texts.size() + 1,
            options.field, did_you_mean(options.field, known));
    }
    texts.push_back(text->as_string());
  }
  return texts;
}

// Embeddings [rows, D] of texts that are computed side by side.
std::vector<std::vector<float>> embed(TextSession& session, const std::vector<const data::TextRow*>& rows) {
  const data::TextBatch batch = data::make_text_batch(rows, session.package.encoder->config().first_position);
  const std::vector<std::int32_t> single = data::single_tokens(batch);
  const ops::Context context = session.engine->context();
  const tensor::Tensor pooled = session.package.encoder
                                    ->pooled(context,
                                             {.tokens = batch.tokens,
                                              .positions = batch.positions,
                                              .types = batch.types,
                                              .plan = &batch.plan,
                                              .rows = single},
                                             batch.parts)
                                    .value();
  std::vector<std::vector<float>> embeddings;
  for (std::int64_t i = 0; i < pooled.dim(0); ++i) embeddings.push_back(pooled.rows(i, i + 1).to_floats());
  return embeddings;
}

void normalise(std::vector<float>& embedding) {
  double squares = 0;
  for (const float value : embedding) squares += static_cast<double>(value) * static_cast<double>(value);
  const double norm = std::max(std::sqrt(squares), 1e-12);
  for (float& value : embedding) value = static_cast<float>(static_cast<double>(value) / norm);
}

void print(const std::vector<float>& embedding) {
  // Shortest texts that read as the same f32.
  std::cout << fmt::format("{{\"embedding\":[{}]}}\n", fmt::join(embedding, ","));
}

void run(Options& options) {
  options.session.pooling = options.pooling;
  options.session.without = TextSessionOptions::Without::kEmbeds;
  const std::vector<std::string> texts = texts_of(options);
  const auto session = open_text_session(options.session);
  const instructions::InstructionSet none;
  const data::TextEncoder encoder(*session->package.tokenizer, none);
  const std::int64_t context = session->package.config.context_length;
  const std::int64_t cutoff = options.max_length > 0 ? std::min(options.max_length, context) : context;
  std::vector<data::TextRow> rows;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (const auto byte = find_invalid_utf8(texts[i]))
      raise(ErrorCategory::kBadData, "{}: row {}: byte {} is not UTF-8", options.data, i + 1, *byte);
    rows.push_back(encoder.encode_text(texts[i], cutoff));
    const auto end = static_cast<std::int64_t>(rows.back().tokens.size());
    rows.back().parts = {{0, session->mean_pooling ? end : 1}};
  }
  Progress progress("Embedding", static_cast<std::int64_t>(rows.size()), "texts");
  for (std::size_t begin = 0; begin < rows.size();) {
    throw_if_cancelled("embedding");
    std::vector<const data::TextRow*> chosen;
    std::int64_t tokens = 0;
    while (begin < rows.size() && (chosen.empty() || tokens < options.batch_tokens)) {
      tokens += static_cast<std::int64_t>(rows[begin].tokens.size());
      chosen.push_back(&rows[begin++]);
    }
    for (std::vector<float>& embedding : embed(*session, chosen)) {
      if (!options.plain) normalise(embedding);
      print(embedding);
    }
    progress.update(static_cast<std::int64_t>(begin));
  }
  progress.finish();
}

}  // namespace

void add_embed_command(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("embed", "Embeddings of texts from an encoder, one JSON object a line");
  command->add_option("--model,-m", options->session.model, "Hugging Face folder of an encoder")->required();
  command->add_option("--adapter,-a", options->session.adapter, "LoRA adapter tuned on the encoder");
  command
      ->add_option("--data,-d", options->data, "texts: one a line, or rows (.jsonl, .json, .csv); - for standard input")
      ->required();
  command->add_option("--field", options->field, "field of rows that holds the text")->capture_default_str();
  command
      ->add_option("--pooling", options->pooling,
                   "mean over the tokens, first token, or auto: as the model's folder says, else mean of none")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "mean", "first"}));
  command->add_flag("--no-normalize,--plain", options->plain,
                    "leave embeddings as long as they are (default: length 1)");
  command
      ->add_option("--max-length", options->max_length,
                   "tokens of a text, the rest is cut off; 0: what the model takes")
      ->capture_default_str()
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 24));
  command->add_option("--batch-tokens", options->batch_tokens, "tokens computed at a time")
      ->capture_default_str()
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 24));
  command->add_option("--dtype", options->session.dtype, "compute type: auto, bf16 or f32")->capture_default_str();
  command->add_option("--threads", options->session.threads, "threads; 0 takes all processors")
      ->capture_default_str()
      ->check(CLI::Range(0, 4096));
  command->footer(
      "\nExamples:\n  instruct embed --model all-MiniLM-L6-v2 --data sentences.txt > embeddings.jsonl\n"
      "  instruct embed --model all-MiniLM-L6-v2 --data rows.csv --field question --pooling mean");
  command->callback([options] { run(*options); });
}

}  // namespace instruct::cli
