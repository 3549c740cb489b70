// `instruct bench`: figures of this machine, with the share of limits measured in the same process.
#include <fmt/core.h>

#include <CLI/CLI.hpp>

#include <iostream>

#include "base/error.h"
#include "base/json.h"
#include "base/progress.h"
#include "bench/figures.h"
#include "cli/commands.h"
#include "cli/session.h"

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
};

void show(const Value& value, bool json) {
  if (json) {
    std::cout << dump_json(value) << '\n';
    return;
  }
  for (const auto& [key, item] : value.as_object()) {
    if (item.is_array()) {
      for (const Value& row : item.as_array()) {
        std::cout << fmt::format("  {:>6} x {:>6} x {:>6}  {:>7.0f} GFLOP/s  {:>4.0f}%\n", row.at("m").as_integer(),
                                 row.at("n").as_integer(), row.at("k").as_integer(), row.at("gflops").as_double(),
                                 100 * row.at("limit_share").as_double());
      }
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
  command.add_option("--length", pass.length, "tokens a row, all trained")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command.add_option("--repeats", pass.repeats, "timed passes; the median counts")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
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
    const auto session = open_session(
        all->options.model, {.keep_quantised = all->options.keep_quantised,
                             .trainable = !lora,
                             .integers = all->options.model.base_compute == "int8" ? ops::IntegerUse::kGradients8
                                                                                   : ops::IntegerUse::kNone});
    models::Llama& model = *session->package.model;
    std::unique_ptr<adapters::LoraAdapter> adapter;
    if (lora) {
      const std::vector<nn::Linear*> layers = model.linears();
      adapter = adapters::LoraAdapter::create(
          {.rank = all->rank, .alpha = 2.0 * static_cast<double>(all->rank), .target_modules = {"all-linear"}}, layers,
          model.dtype(), all->options.model.seed, session->engine->allocator());
    }
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
    const auto session = open_session(all->options.model);
    show(bench::bench_score(*session->engine, *session->package.model, all->pass), all->options.json);
  });
}

void add_generate(CLI::App& parent) {
  struct All {
    Options options;
    bench::GenerateBenchOptions generate;
  };
  auto all = std::make_shared<All>();
  CLI::App* command = parent.add_subcommand("generate", "Prompts and greedy answers of random tokens");
  all->options.add_to(*command);
  command->add_option("--prompt-tokens", all->generate.prompt_tokens)
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--new-tokens", all->generate.new_tokens)->capture_default_str()->check(CLI::Range(2, 1 << 20));
  command->add_option("--batch", all->generate.batch, "requests together")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--repeats", all->generate.repeats)->capture_default_str()->check(CLI::PositiveNumber);
  command->footer(
      "\nExample:\n  instruct bench generate --model M.gguf --prompt-tokens 256 --new-tokens 64 --batch 8 --json");
  command->callback([all] {
    const auto session = open_session(all->options.model, {.integers = ops::IntegerUse::kForward16});
    show(bench::bench_generate(*session->engine, *session->package.model, *session->package.tokenizer, all->generate),
         all->options.json);
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
    const auto session = open_session(all->options.model);
    show(bench::bench_kernels(*session->engine, *session->package.model, all->rows), all->options.json);
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
  add_train(*command);
  add_score(*command);
  add_generate(*command);
}

}  // namespace instruct::cli
