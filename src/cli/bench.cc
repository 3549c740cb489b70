// `instruct bench`: figures of this machine, with the share of limits measured in the same process.
#include <fmt/core.h>

#include <CLI/CLI.hpp>

#include <iostream>

#include "base/error.h"
#include "base/json.h"
#include "base/progress.h"
#include "bench/figures.h"
#include "bench/load.h"
#include "cli/commands.h"
#include "cli/generation.h"
#include "cli/session.h"
#include "cli/text_session.h"

namespace instruct::cli {
namespace {

struct Options {
  ModelOptions model;
  bool json = false;
  bool keep_quantised = false;

  void add_to(CLI::App& command) {
    model.add_to(command);
    command.add_flag("--json", json, "print JSON");
  }
  void check() const {
    ops::dtype_from_option(model.dtype);
    check_threads(model.threads);
  }
  std::unique_ptr<Session> open(const models::WeightOptions& weights = {}) const {
    check();
    auto session = open_session(model, weights);
    require_decoder(*session, "bench");
    return session;
  }
};

// One of several parts of a start, or products.
void show_row(const Value& row) {
  if (const Value* part = row.find("part")) {
    std::cout << fmt::format("  {:<28} {:.1f} ms\n", part->as_string(), 1e3 * row.at("seconds").as_double());
    return;
  }
  std::cout << fmt::format("  {:>6} x {:>6} x {:>6}  {:>7.0f} GFLOP/s  {:>4.0f}%", row.at("m").as_integer(),
                           row.at("n").as_integer(), row.at("k").as_integer(), row.at("gflops").as_double(),
                           100 * row.at("limit_share").as_double());
  if (const Value* integers = row.find("int8_gops"); integers != nullptr && integers->as_double() > 0)
    std::cout << fmt::format("  int8 {:>7.0f} GOP/s", integers->as_double());
  std::cout << '\n';
}

void show(const Value& value, bool json) {
  if (json) {
    std::cout << dump_json(value) << '\n';
    return;
  }
  for (const auto& [key, item] : value.as_object()) {
    if (item.is_array()) {
      for (const Value& row : item.as_array()) show_row(row);
    } else if (key.ends_with("bytes")) {
      std::cout << fmt::format("{:<30} {}\n", key, format_bytes(item.as_integer()));
    } else if (key.ends_with("bytes_per_second")) {
      std::cout << fmt::format("{:<30} {}/s\n", key, format_bytes(static_cast<std::int64_t>(item.as_double())));
    } else if (key == "limit_share") {
      std::cout << fmt::format("{:<30} {:.1f}%\n", key, 100 * item.as_double());
    } else if (item.is_integer() || item.is_string()) {
      std::cout << fmt::format("{:<30} {}\n", key, item.is_string() ? item.as_string() : dump_json(item));
    } else {
      std::cout << fmt::format("{:<30} {:.4g}\n", key, item.as_double());
    }
  }
}

void add_pass_options(CLI::App& command, bench::PassOptions& pass) {
  command.add_option("--batch", pass.rows, "rows a pass")->capture_default_str()->check(CLI::PositiveNumber);
  command.add_option("--length", pass.length, "tokens a row, all of them trained or scored")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command.add_option("--repeats", pass.repeats, "timed passes; the median counts")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
}

// On all linear layers.
std::unique_ptr<adapters::LoraAdapter> new_adapter(Session& session, std::int64_t rank, std::uint64_t seed) {
  const std::vector<nn::Linear*> layers = session.package.model->linears();
  return adapters::LoraAdapter::create(
      {.rank = rank, .alpha = 2.0 * static_cast<double>(rank), .target_modules = {"all-linear"}}, layers,
      session.package.model->dtype(), seed, session.engine->allocator());
}

void add_train(CLI::App& parent) {
  struct All {
    Options options;
    bench::PassOptions pass;
    std::string type = "lora";
    std::string optim = "adamw";
    std::int64_t rank = 16;
  };
  auto all = std::make_shared<All>();
  CLI::App* command = parent.add_subcommand("train", "Optimizer steps over random tokens");
  all->options.add_to(*command);
  add_pass_options(*command, all->pass);
  command->add_option("--finetuning-type", all->type, "lora or full")
      ->capture_default_str()
      ->check(CLI::IsMember({"lora", "full"}));
  command->add_option("--lora-rank", all->rank, "rank, on all linear layers")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--optim", all->optim, "adamw, or adamw_8bit (moments in 8 bits)")
      ->capture_default_str()
      ->check(CLI::IsMember({"adamw", "adamw_8bit"}));
  command->add_flag("--gradient-checkpointing", all->pass.checkpoint, "keep only the input of each block");
  command->add_flag("--keep-quantised", all->options.keep_quantised, "convert a quantised base by tile");
  command->footer("\nExample:\n  instruct bench train --model M.gguf --batch 4 --length 512");
  command->callback([all] {
    if (all->options.model.base_compute == "int16")
      raise(ErrorCategory::kInvalidArgument,
            "--base-compute int16 is for forward passes: training takes int8 or dtype");
    const bool lora = all->type == "lora";
    if (all->optim == "adamw_8bit") all->pass.moments = train::Moments::k8Bit;
    const auto session =
        all->options.open({.keep_quantised = all->options.keep_quantised,
                           .trainable = !lora,
                           .integers = all->options.model.base_compute == "int8" ? ops::IntegerUse::kGradients8
                                                                                 : ops::IntegerUse::kNone});
    models::LanguageModel& model = *session->package.model;
    std::unique_ptr<adapters::LoraAdapter> adapter;
    if (lora) adapter = new_adapter(*session, all->rank, all->options.model.seed);
    show(bench::bench_train(*session->engine, model, adapter.get(), all->pass), all->options.json);
  });
}

void add_score(CLI::App& parent) {
  struct All {
    Options options;
    bench::PassOptions pass;
  };
  auto all = std::make_shared<All>();
  CLI::App* command = parent.add_subcommand("score", "Log-probabilities of random tokens");
  all->options.add_to(*command);
  add_pass_options(*command, all->pass);
  command->footer("\nExample:\n  instruct bench score --model M.gguf --batch 8 --length 256");
  command->callback([all] {
    const auto session = all->options.open();
    show(bench::bench_score(*session->engine, *session->package.model, all->pass), all->options.json);
  });
}

void add_encode(CLI::App& parent) {
  struct All {
    TextSessionOptions session{.without = TextSessionOptions::Without::kEmbeds};
    bench::PassOptions pass{.rows = 1};
    bool backward = false;
    bool json = false;
  };
  auto all = std::make_shared<All>();
  CLI::App* command = parent.add_subcommand("encode", "Passes of an encoder over random tokens");
  command->add_option("--model,-m", all->session.model, "Hugging Face folder of an encoder")->required();
  add_pass_options(*command, all->pass);
  command->add_flag("--backward", all->backward, "and back to every weight, as in full tuning");
  command->add_flag("--gradient-checkpointing", all->pass.checkpoint, "keep only the input of each block");
  command->add_option("--dtype", all->session.dtype, "compute type: auto, bf16 or f32")->capture_default_str();
  command->add_option("--threads", all->session.threads, "threads; 0 takes all processors")
      ->capture_default_str()
      ->check(CLI::Range(0, 4096));
  command->add_flag("--json", all->json, "print JSON");
  command->footer("\nExample:\n  instruct bench encode --model bigbird-roberta-base --length 4096");
  command->callback([all] {
    all->session.trainable = all->backward;
    const auto session = open_text_session(all->session);
    show(bench::bench_encode(*session->engine, *session->package.encoder, all->pass, all->backward), all->json);
  });
}

void add_generate(CLI::App& parent) {
  struct All {
    Options options;
    bench::GenerateBenchOptions generate;
    std::int64_t rank = 16;
  };
  auto all = std::make_shared<All>();
  CLI::App* command = parent.add_subcommand("generate", "Prompts and greedy answers of random tokens");
  all->options.add_to(*command);
  command->add_option("--prompt-tokens", all->generate.prompt_tokens)
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--new-tokens", all->generate.new_tokens)->capture_default_str()->check(CLI::Range(2, 1 << 20));
  command->add_option("--batch", all->generate.batch, "answers written side by side")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--requests", all->generate.requests, "in all; 0 for one batch")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--uneven", all->generate.uneven, "answers of all lengths from an eighth of --new-tokens on");
  command->add_option("--block-tokens", all->generate.engine.block_tokens, "tokens of a block of the key/value cache")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--adapters", all->generate.adapters,
                   "LoRA adapters on all linear layers, which requests take in turns")
      ->capture_default_str()
      ->check(CLI::Range(0, 256));
  command->add_option("--lora-rank", all->rank, "their rank")->capture_default_str()->check(CLI::PositiveNumber);
  add_engine_options(*command, all->generate.engine);
  command->add_option("--repeats", all->generate.repeats)->capture_default_str()->check(CLI::PositiveNumber);
  command->footer(
      "\nExample:\n  instruct bench generate --model M.gguf --prompt-tokens 256 --new-tokens 64 --batch 8 --json");
  command->callback([all] {
    if (all->generate.adapters > 0 && !all->options.model.adapter.empty())
      raise(ErrorCategory::kInvalidArgument, "--adapters makes adapters of its own: leave --adapter out");
    const auto session = all->options.open({.integers = ops::IntegerUse::kForward16});
    std::vector<std::unique_ptr<adapters::LoraAdapter>> made;
    std::vector<const adapters::LoraAdapter*> together;
    const std::vector<nn::Linear*> layers = session->package.model->linears();
    for (std::int32_t i = 0; i < all->generate.adapters; ++i) {
      made.push_back(new_adapter(*session, all->rank, all->options.model.seed + static_cast<std::uint64_t>(i)));
      together.push_back(made.back().get());
    }
    if (made.size() > 1)
      session->adapters = std::make_unique<adapters::AdapterSet>(together, layers, session->engine->allocator());
    show(bench::bench_generate(*session->engine, *session->package.model, *session->package.tokenizer, all->generate),
         all->options.json);
  });
}

void add_load(CLI::App& parent) {
  struct All {
    Options options;
    bench::LoadBenchOptions load;
    std::string prompt = "What is the capital of France?";
    std::int64_t started_at = 0;  // in a process that is measured: when it was started
  };
  auto all = std::make_shared<All>();
  CLI::App* command = parent.add_subcommand("load", "Cold starts: a new process up to its first token, part by part");
  all->options.add_to(*command);
  command->add_option("--prompt", all->prompt, "what is asked")->capture_default_str();
  command->add_option("--repeats", all->load.repeats, "processes; the median counts")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_flag("--drop-file-cache", all->load.drop_file_cache, "let each process read the model from disk");
  command->add_option("--started-at", all->started_at)->group("");
  command->footer("\nExample:\n  instruct bench load --model M.gguf");
  command->callback([all] {
    if (all->started_at == 0) {
      all->options.check();
      all->load.model = all->options.model.model;
      ops::Engine engine(all->options.model.threads);
      show(bench::bench_load(engine, all->load), all->options.json);
      return;
    }
    const auto session = all->options.open({.integers = ops::IntegerUse::kForward16});
    std::cout << dump_json(
        bench::cold_start({*session->engine, session->package, *session->dialogue, session->chat_template_seconds},
                          all->prompt, all->started_at));
  });
}

void add_kernels(CLI::App& parent) {
  struct All {
    Options options;
    std::int64_t rows = 2048;
  };
  auto all = std::make_shared<All>();
  CLI::App* command = parent.add_subcommand("kernels", "Matrix products of a model's shapes, and memory");
  all->options.add_to(*command);
  command->add_option("--tokens", all->rows, "rows of the products")->capture_default_str()->check(CLI::PositiveNumber);
  command->footer("\nExample:\n  instruct bench kernels --model M.gguf --tokens 2048");
  command->callback([all] {
    const auto session = all->options.open();
    show(bench::bench_kernels(*session->engine, *session->package.model, all->rows), all->options.json);
  });
}

void add_cross_entropy(CLI::App& parent) {
  struct All {
    bench::CrossEntropyOptions shape;
    std::string dtype = "auto";
    int threads = 0;
    bool json = false;
  };
  auto all = std::make_shared<All>();
  CLI::App* command = parent.add_subcommand("cross-entropy", "Output projection and cross-entropy of a vocabulary");
  command->add_option("--tokens", all->shape.tokens, "rows of hidden states")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  command->add_option("--width", all->shape.width, "of the hidden states")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 16));
  command->add_option("--vocabulary", all->shape.vocabulary, "tokens of the vocabulary")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 22));
  command->add_option("--repeats", all->shape.repeats, "timed passes; the median counts")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--dtype", all->dtype, "compute type: auto, bf16 or f32")->capture_default_str();
  command->add_option("--threads", all->threads, "threads; 0 takes all processors")
      ->capture_default_str()
      ->check(CLI::Range(0, 4096));
  command->add_flag("--json", all->json, "print JSON");
  command->footer(
      "\nForward and backward over a frozen weight of random values; limit_share is the time of its two products "
      "alone\n"
      "over that of the whole. The defaults are the shape of Gemma 3 270M.\n\n"
      "Example:\n  instruct bench cross-entropy --tokens 2048 --width 640 --vocabulary 262144");
  command->callback([all] {
    all->shape.dtype = ops::dtype_from_option(all->dtype);
    check_threads(all->threads);
    ops::Engine engine(all->threads);
    show(bench::bench_cross_entropy(engine, all->shape), all->json);
  });
}

}  // namespace

void add_bench_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("bench", "Measure this machine, with the share of its limits");
  command->require_subcommand(1);
  command->footer(
      "\nExamples:\n  instruct bench train --model M.gguf --batch 4 --length 512\n"
      "  instruct bench generate --model M.gguf --prompt-tokens 256 --new-tokens 64 --batch 8 --json");
  add_kernels(*command);
  add_cross_entropy(*command);
  add_train(*command);
  add_score(*command);
  add_encode(*command);
  add_generate(*command);
  add_load(*command);
}

}  // namespace instruct::cli
