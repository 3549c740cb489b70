// Every export read back with our own readers, and the metadata llama.cpp needs.
#include "models/export.h"
#include "models/families.h"

#include <gmock/gmock.h>

#include <cmath>
#include <random>

#include "adapters/lora.h"
#include "base/cancel.h"
#include "models/adapter_files.h"
#include "models/sources.h"
#include "models/test_support.h"
#include "ops/weights.h"

namespace instruct::models {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// Those that GGUF has words for.
std::vector<std::string> exported_models() {
  std::vector<std::string> names = golden_models();
  std::erase(names, "qwen2-window");
  std::erase(names, "qwen3-moe-mixed");
  std::erase(names, "gpt2-scaled");
  return names;
}

class Export : public Folder, public ::testing::WithParamInterface<std::string> {
 protected:
  static LoadedAdapter adapter_of(Opened& opened, const fs::path& folder) {
    return load_adapter_folder(folder, *opened.package.model, opened.engine.allocator());
  }
  // The golden adapter with members of its configuration changed; ranks and alphas as PEFT would write them.
  fs::path changed_adapter(const std::string& model, std::initializer_list<Value::Member> members) {
    const fs::path target = folder_ / "changed";
    fs::remove_all(target);
    fs::copy(golden_model(model) / "adapter", target);
    Value json = parse_json(read_file(target / "adapter_config.json"), "adapter_config.json");
    for (const auto& [key, value] : members) json.set(key, value);
    write_file_atomic(target / "adapter_config.json", dump_json(json));
    return target;
  }
  void write_hf(const Opened& opened, const WeightLookup& weights, DType dtype, const char* name = "hf") {
    fs::create_directories(folder_ / name);
    write_hugging_face_files(folder_ / name, opened.package, opened.package.chat_template, weights, dtype);
  }
};

// The merged weights in f32 give what base and adapter gave side by side, but for the order of f32 sums: 64 products of
// size 10 at most, each rounded to 6e-8 of itself, through two blocks.
TEST_P(Export, ReadsBackAsTheMergedModel) {
  Opened opened(golden_model(GetParam()));
  const LoadedAdapter adapter = adapter_of(opened, golden_model(GetParam()) / "adapter");
  const std::vector<float> expected = opened.logits();
  const auto weights = merged_weights(opened.package, &adapter, opened.engine);
  write_gguf(folder_ / "m.gguf", opened.package, opened.package.chat_template, weights,
             {gguf_type("f32"), opened.engine.threads()});
  write_hf(opened, weights, DType::kF32);
  for (const char* name : {"m.gguf", "hf"}) {
    Opened again(folder_ / name);
    EXPECT_LT(largest_gap(again.logits(), expected), 1e-3F) << name;
    EXPECT_EQ(again.package.chat_template, opened.package.chat_template);
    EXPECT_EQ(again.package.config.tied_embeddings, opened.package.config.tied_embeddings);
  }
  EXPECT_EQ(Opened(folder_ / "hf").logits(), Opened(folder_ / "m.gguf").logits());
}

// How far a stored weight may be from the exact one: half a unit of the float types; half a step of q8_0, whose step is
// a 127th of the block's largest weight; a step of q4_0 and q5_0, whose largest weight of the other sign has no code of
// its own; half a step of q4_1 and q5_1, from the least to the largest weight. The f16 scale of a block is off by 2^-11
// of itself, and so is the least weight.
float allowed(DType dtype, float weight, float largest) {
  const float scale = largest * 0x1p-11F;
  switch (dtype) {
    case DType::kF32:
      return 0;
    case DType::kF16:
      return std::abs(weight) * 0x1p-11F + 0x1p-25F;
    case DType::kBF16:
      return std::abs(weight) * 0x1p-8F;
    case DType::kQ8_0:
      return largest / 127 / 2 * 1.001F + scale;
    case DType::kQ5_0:
      return largest / 16 * 1.001F + scale;
    case DType::kQ4_1:
      return largest / 15 * 1.001F + 3 * scale;
    case DType::kQ5_1:
      return largest / 31 * 1.001F + 3 * scale;
    default:
      return largest / 8 * 1.001F + scale;
  }
}

// `offset` was added and taken away again.
void expect_near(const Tensor& stored, const Tensor& exact, tensor::Allocator& allocator, const std::string& name,
                 float offset = 0) {
  ASSERT_EQ(stored.shape(), exact.shape()) << name;
  const std::vector<float> values = ops::converted_copy(stored, DType::kF32, allocator).to_floats();
  const std::vector<float> weights = exact.to_floats();
  for (std::size_t i = 0; i < values.size(); ++i) {
    float largest = 0;
    for (std::size_t j = i / 32 * 32; j < std::min(values.size(), i / 32 * 32 + 32); ++j)
      largest = std::max(largest, std::abs(weights[j]));
    const float most = allowed(stored.dtype(), weights[i], largest) + 0x1p-24F * std::abs(weights[i] + offset) * offset;
    ASSERT_LE(std::abs(values[i] - weights[i]), most) << name << " " << i;
  }
}

TEST_P(Export, StoredWeightsAreWithinAStepOfTheMergedOnes) {
  Opened opened(golden_model(GetParam()));
  const LoadedAdapter adapter = adapter_of(opened, golden_model(GetParam()) / "adapter");
  tensor::Allocator& allocator = opened.engine.allocator();
  const auto weights = merged_weights(opened.package, &adapter, opened.engine);
  const auto stored = opened.package.model->weights();
  const DecoderNames& names = family_of(opened.package.config.architecture).names;
  for (const DType dtype :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ5_1, DType::kQ5_0, DType::kQ4_1, DType::kQ4_0}) {
    write_gguf(folder_ / "m.gguf", opened.package, "", weights,
               {gguf_type(tensor::info(dtype).name), opened.engine.threads()});
    const auto file = formats::GgufFile::open(folder_ / "m.gguf");
    const auto gguf = make_gguf_source(file, opened.package.config, tensor::make_host_allocator());
    for (const NamedWeight& weight : stored)
      expect_near(gguf->get(weight.name), weights(weight.name), allocator, weight.name,
                  gguf_offset(opened.package.config, weight.name));
    EXPECT_EQ(gguf->get(fmt::format("{}0.{}.weight", names.block, names.output)).dtype(), dtype);
    if (tensor::is_quantised(dtype)) continue;
    write_hf(opened, weights, dtype);
    const auto hf = make_folder_source(folder_ / "hf", opened.package.config);
    for (const NamedWeight& weight : stored)
      expect_near(hf->get(weight.name), weights(weight.name), allocator, weight.name);
    EXPECT_EQ(hf->get(fmt::format("{}.weight", names.norm)).dtype(), dtype);
    const Value config = parse_json(read_file(folder_ / "hf" / "config.json"), "config.json");
    EXPECT_EQ(config.at("dtype"), config.at("torch_dtype"));
    EXPECT_NO_THROW(Opened(folder_ / "hf").logits());
  }
}

// From one format to the other and back nothing is lost: not the rotary scaling, not the head, not the tokenizer.
TEST_P(Export, ThereAndBackIsTheSameModel) {
  Opened opened(golden_model(GetParam()));
  const std::vector<float> expected = opened.logits();
  write_gguf(folder_ / "m.gguf", opened.package, opened.package.chat_template,
             merged_weights(opened.package, nullptr, opened.engine), {gguf_type("f32"), opened.engine.threads()});
  Opened gguf(folder_ / "m.gguf");
  write_hf(gguf, merged_weights(gguf.package, nullptr, gguf.engine), DType::kF32);
  Opened back(folder_ / "hf");
  EXPECT_LT(largest_gap(back.logits(), expected), 1e-3F);  // factors of frequencies are f32
  EXPECT_EQ(back.package.chat_template, opened.package.chat_template);
  EXPECT_EQ(back.package.tokenizer->spec().tokens, opened.package.tokenizer->spec().tokens);
  EXPECT_EQ(back.package.tokenizer->eos(), opened.package.tokenizer->eos());
  EXPECT_EQ(back.package.config.rotary.scaling, opened.package.config.rotary.scaling);
  write_gguf(folder_ / "again.gguf", gguf.package, gguf.package.chat_template,
             merged_weights(gguf.package, nullptr, gguf.engine), {gguf_type("f32"), opened.engine.threads()});
  EXPECT_EQ(Opened(folder_ / "again.gguf").logits(), gguf.logits());
}

TEST_P(Export, GgufHasWhatLlamaCppAsksFor) {
  Opened opened(golden_model(GetParam()));
  write_gguf(folder_ / "m.gguf", opened.package, "{{ template }}",
             merged_weights(opened.package, nullptr, opened.engine), {gguf_type("q4_0"), opened.engine.threads()});
  const auto file = formats::GgufFile::open(folder_ / "m.gguf");
  const std::string architecture = file->text("general.architecture");
  const Family& family = family_of(opened.package.config.architecture);
  EXPECT_EQ(architecture, family.gguf);
  for (const char* key : {"block_count", "context_length", "embedding_length", "feed_forward_length",
                          "attention.head_count", "attention.head_count_kv", "vocab_size"})
    EXPECT_GT(file->integer(architecture + "." + key), 0) << key;
  EXPECT_GT(file->number(architecture + "." + std::string(epsilon_key(family))), 0);
  if (!family.learned_positions) {
    EXPECT_GT(file->integer(architecture + ".rope.dimension_count"), 0);
    EXPECT_EQ(file->number(architecture + ".rope.freq_base"), opened.package.config.rotary.theta);
  }
  EXPECT_EQ(file->integer("general.file_type"), 2);
  EXPECT_EQ(file->integer("general.quantization_version"), 2);
  EXPECT_EQ(file->text("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(file->text("tokenizer.ggml.pre"), "smollm");
  EXPECT_EQ(file->texts("tokenizer.ggml.tokens").size(), 400U);
  EXPECT_EQ(file->integers_or_empty("tokenizer.ggml.token_type").size(), 400U);
  EXPECT_EQ(file->integers_or_empty("tokenizer.ggml.token_type")[0], 3);
  EXPECT_EQ(file->texts("tokenizer.ggml.merges").size(), opened.package.tokenizer->spec().merges.size());
  EXPECT_EQ(file->integer("tokenizer.ggml.bos_token_id"), 0);
  EXPECT_EQ(file->integer("tokenizer.ggml.eos_token_id"), 1);
  EXPECT_EQ(file->text("tokenizer.chat_template"), "{{ template }}");
  EXPECT_EQ(file->has_tensor("rope_freqs.weight"), GetParam() == "llama3-rope");
  EXPECT_EQ(file->has_tensor("output.weight"), !opened.package.config.tied_embeddings);
  // A tied embedding is the head too, which llama.cpp makes finer: as q6_k, but 64 columns are too few for that.
  EXPECT_EQ(file->tensor("token_embd.weight").dtype(),
            opened.package.config.tied_embeddings ? DType::kQ8_0 : DType::kQ4_0);
  EXPECT_EQ(file->tensor("blk.1.attn_output.weight").dtype(), DType::kQ4_0);
  EXPECT_EQ(file->tensor("blk.1.attn_norm.weight").dtype(), DType::kF32);
}

class ExportOfKQuants : public Folder {};

// Normal values that a name alone decides.
Tensor normal_values(const std::string& name, const tensor::Shape& shape, tensor::Allocator& allocator) {
  std::mt19937 random(static_cast<std::uint32_t>(std::hash<std::string>()(name)));
  std::normal_distribution<float> normal;
  Tensor values = Tensor::empty(shape, DType::kF32, allocator);
  std::generate_n(values.data<float>(), values.elements(), [&] { return normal(random); });
  return values;
}

// Rows of 256 take K-quants: types as planned, values near, and the same bytes from any number of threads.
TEST_F(ExportOfKQuants, AreWrittenAsPlannedByAnyNumberOfThreads) {
  Opened opened(golden_model("llama-tied"));
  const Ones ones;
  make_wide(opened, ones, 8);
  tensor::Allocator& allocator = opened.engine.allocator();
  const WeightLookup weights = [&](const std::string& name) {
    return normal_values(name, ones.get(name).shape(), allocator);
  };
  ThreadPool one(1), three(3);
  write_gguf(folder_ / "one.gguf", opened.package, "", weights, {gguf_type("Q4_K_M"), one});
  write_gguf(folder_ / "three.gguf", opened.package, "", weights, {gguf_type("q4_k_m"), three});
  EXPECT_EQ(read_file(folder_ / "one.gguf"), read_file(folder_ / "three.gguf"));
  const auto file = formats::GgufFile::open(folder_ / "one.gguf");
  EXPECT_EQ(file->integer("general.file_type"), 15);
  EXPECT_EQ(file->tensor("token_embd.weight").dtype(), DType::kQ6_K);
  EXPECT_EQ(file->tensor("blk.0.attn_v.weight").dtype(), DType::kQ6_K);
  EXPECT_EQ(file->tensor("blk.1.attn_v.weight").dtype(), DType::kQ4_K);
  EXPECT_EQ(file->tensor("blk.3.ffn_down.weight").dtype(), DType::kQ6_K);
  EXPECT_EQ(file->tensor("blk.3.ffn_up.weight").dtype(), DType::kQ4_K);
  const auto source = make_gguf_source(file, opened.package.config, tensor::make_host_allocator());
  for (const NamedWeight& weight : opened.package.model->weights()) {
    const Tensor stored = source->get(weight.name);
    if (stored.rank() == 1) continue;
    const std::vector<float> values = ops::converted_copy(stored, DType::kF32, allocator).to_floats();
    const std::vector<float> exact = weights(weight.name).to_floats();
    double squares = 0;
    for (std::size_t i = 0; i < values.size(); ++i)
      squares += std::pow(static_cast<double>(values[i]) - static_cast<double>(exact[i]), 2);
    // As ErrorsHaveTheSizeOfTheirBits of src/tensor/k_quants_test.cc.
    EXPECT_LT(std::sqrt(squares / static_cast<double>(values.size())), stored.dtype() == DType::kQ6_K ? 0.019 : 0.075)
        << weight.name;
  }
}

// What llama.cpp takes for granted of Gemma must be so.
TEST(ExportOfGemma, WhatGgufCannotSayIsRefused) {
  Opened opened(golden_model("gemma3"));
  models::LlamaConfig& config = opened.package.config;
  const models::LlamaConfig usual = config;
  const auto message = [&] {
    return message_of([&] {
      write_gguf(fs::temp_directory_path() / "instruct-never-written.gguf", opened.package, "",
                 merged_weights(opened.package, nullptr, opened.engine), {gguf_type("f32"), opened.engine.threads()});
    });
  };
  config.windowed = {true, false, true, true, true, false};
  EXPECT_THAT(message(), HasSubstr("a sliding window holds for these layers only: use hf"));
  config = usual;
  config.windowed.clear();
  EXPECT_THAT(message(), HasSubstr("the sliding window holds for all layers: use hf"));
  config = usual;
  config.query_scalar = 100;
  EXPECT_THAT(message(), HasSubstr("query_pre_attn_scalar is 100, llama.cpp takes 16: use hf"));
  config = usual;
  config.logit_soft_cap = 30;
  EXPECT_THAT(message(), HasSubstr("has no soft caps: use hf"));
  config = usual;
  config.window_rotary->theta = 5000;
  EXPECT_THAT(message(), HasSubstr("how layers with a window scale their positions: use hf"));
}

// What llama.cpp computes a GPT-2's scores and feed-forward with.
TEST(ExportOfGpt2, WhatGgufCannotSayIsRefused) {
  Opened opened(golden_model("gpt2"));
  LlamaConfig& config = opened.package.config;
  const LlamaConfig usual = config;
  const auto expect_refusal = [&] {
    EXPECT_THAT(message_of([&] {
                  write_gguf(fs::temp_directory_path() / "instruct-never-written.gguf", opened.package, "",
                             merged_weights(opened.package, nullptr, opened.engine),
                             {gguf_type("f32"), opened.engine.threads()});
                }),
                HasSubstr("and gelu_new: use hf"));
  };
  config.query_scalar = 1;
  expect_refusal();
  config = usual;
  config.scores_by_layer = true;
  expect_refusal();
  config = usual;
  config.activation = ops::Activation::kRelu;
  expect_refusal();
}

TEST(ExportOfExperts, WhatGgufCannotSayIsRefused) {
  Opened opened(golden_model("qwen3-moe"));
  LlamaConfig& config = opened.package.config;
  const auto message = [&] {
    return message_of([&] {
      write_gguf(fs::temp_directory_path() / "instruct-never-written.gguf", opened.package, "",
                 merged_weights(opened.package, nullptr, opened.engine), {gguf_type("f32"), opened.engine.threads()});
    });
  };
  config.renormalise_experts = false;
  EXPECT_THAT(message(), HasSubstr("has experts whose weights sum to 1 (norm_topk_prob): use hf"));
  config.renormalise_experts = true;
  config.dense = {true, false};
  EXPECT_THAT(message(), HasSubstr("has experts in every layer: use hf"));
}

// What llama.cpp adds to a base weight, from the file alone, is what the merged weight has more.
TEST_P(Export, GgufLoraAddsWhatTheAdapterAdds) {
  const std::initializer_list<Value::Member> variants[] = {
      {},
      {{"use_rslora", true}},
      {{"alpha_pattern",
        Value::object({{"q_proj", 3.0}, {"layers.1.self_attn.q_proj", 24.0}, {"^model.layers.0.mlp.up_proj", 2}})}},
      {{"lora_alpha", 0}}};
  for (const auto& variant : variants) {
    Opened opened(golden_model(GetParam()));
    const LoadedAdapter adapter = adapter_of(opened, changed_adapter(GetParam(), variant));
    write_gguf_lora(folder_ / "lora.gguf", opened.package, adapter);
    const auto file = formats::GgufFile::open(folder_ / "lora.gguf");
    EXPECT_EQ(file->text("general.type"), "adapter");
    EXPECT_EQ(file->text("adapter.type"), "lora");
    EXPECT_EQ(file->tensors().size(), 2 * adapter.adapter->modules().size());
    const auto merged = merged_weights(opened.package, &adapter, opened.engine);
    const auto plain = merged_weights(opened.package, nullptr, opened.engine);
    for (const adapters::LoraModule& module : adapter.adapter->modules()) {
      const std::string name = gguf_name(opened.package.config, module.name + ".weight");
      const Tensor a = file->tensor(name + ".lora_a");
      const Tensor b = file->tensor(name + ".lora_b");
      Tensor sum = plain(module.name + ".weight");
      std::int64_t heads = 0;
      const bool moved = has_moved_rows(opened.package.config, module.name, heads);
      if (moved) sum = rows_to_gguf(sum, heads, opened.engine.allocator());
      const auto scale = static_cast<float>(file->number("adapter.lora.alpha") / static_cast<double>(a.dim(0)));
      adapters::merge_low_rank(a, b, scale, sum);
      if (moved) sum = rows_from_gguf(sum, heads, opened.engine.allocator());
      EXPECT_LT(largest_gap(sum.to_floats(), merged(module.name + ".weight").to_floats()), 1e-6F) << name;
    }
  }
}

TEST_P(Export, PeftFoldersReadBackEqual) {
  Opened opened(golden_model(GetParam()));
  const fs::path changed = changed_adapter(
      GetParam(), {{"use_rslora", true}, {"alpha_pattern", Value::object({{"up_proj", 3.5}, {"proj", 2.0}})}});
  const LoadedAdapter adapter = adapter_of(opened, changed);
  const std::vector<float> expected = opened.logits();
  fs::create_directories(folder_ / "peft");
  write_peft_files(folder_ / "peft", *adapter.adapter, adapter.masters, {"base", "b", "t", "template"},
                   opened.package.config.layers);
  Opened again(golden_model(GetParam()));
  const LoadedAdapter loaded = adapter_of(again, folder_ / "peft");
  EXPECT_EQ(again.logits(), expected);
  EXPECT_EQ(loaded.origin.template_fingerprint, "t");
  const Value config = parse_json(read_file(folder_ / "peft" / "adapter_config.json"), "adapter_config.json");
  EXPECT_EQ(config.at("target_modules").size() * static_cast<std::size_t>(opened.package.config.layers),
            adapter.adapter->modules().size());
  EXPECT_EQ(config.at("peft_type").as_string(), "LORA");
  EXPECT_EQ(config.at("fan_in_fan_out").as_bool(), family_of(opened.package.config.architecture).inputs_first);
}

INSTANTIATE_TEST_SUITE_P(Models, Export, ::testing::ValuesIn(exported_models()), test_name);

class BadExport : public Export {};

TEST_F(BadExport, AdaptersThatCannotBeHonouredAreRefused) {
  Opened opened(golden_model("llama-tied"));
  const auto message = [&](std::initializer_list<Value::Member> members) {
    return message_of([&] { adapter_of(opened, changed_adapter("llama-tied", members)); });
  };
  EXPECT_THAT(message({{"use_dora", true}}), HasSubstr("adapter_config.json: option 'use_dora' is not supported"));
  EXPECT_THAT(message({{"peft_type", "PREFIX_TUNING"}}), HasSubstr("PEFT adapter of type PREFIX_TUNING"));
  EXPECT_THAT(message({{"bias", "all"}}), HasSubstr("bias 'all'"));
  EXPECT_THAT(message({{"r", "four"}}), HasSubstr("adapter_config.json: "));
  EXPECT_THAT(message({{"r", 8}}), HasSubstr("has rank 4, its configuration says 8"));
  EXPECT_THAT(message({{"rank_pattern", Value::object({{"q_proj", 2}})}}), HasSubstr("configuration says 2"));
  EXPECT_THAT(message({{"alpha_pattern", Value::object({{"layers.[01].self_attn.q_proj", 2}})}}),
              HasSubstr("pattern 'layers.[01].self_attn.q_proj'"));
  const fs::path changed = changed_adapter("llama-tied", {});
  fs::rename(changed / "adapter_model.safetensors", changed / "adapter_model.bin");
  EXPECT_THAT(message_of([&] { adapter_of(opened, changed); }), HasSubstr("adapter_model.bin"));
}

TEST_F(BadExport, AnAdapterOfSomeLayersNamesThem) {
  Opened opened(golden_model("llama-tied"));
  const std::vector<std::string> targets{"model.layers.1.mlp.up_proj", "q_proj"};
  const auto layers = opened.package.model->linears();
  const auto adapter = adapters::LoraAdapter::create({.rank = 2, .target_modules = targets}, layers, DType::kF32, 1,
                                                     opened.engine.allocator());
  std::vector<std::pair<Tensor, Tensor>> masters;
  for (const auto& module : adapter->modules()) masters.emplace_back(module.a.value(), module.b.value());
  write_peft_files(folder_, *adapter, masters, {}, 2);
  const Value config = parse_json(read_file(folder_ / "adapter_config.json"), "adapter_config.json");
  EXPECT_EQ(config.at("target_modules"), Value(Value::Array{"q_proj", "model.layers.1.mlp.up_proj"}));
}

TEST_F(BadExport, WeightsATypeCannotHoldAreNamedAndNothingIsLeft) {
  Opened opened(golden_model("llama-tied"));
  const auto plain = merged_weights(opened.package, nullptr, opened.engine);
  float bad = 1e5F;
  const WeightLookup weights = [&](const std::string& name) {
    Tensor weight = plain(name);
    if (name == "model.layers.1.mlp.up_proj.weight") weight.data<float>()[3] = bad;
    return weight;
  };
  const auto message = [&](DType dtype) {
    return message_of([&] {
      write_gguf(folder_ / "m.gguf", opened.package, "", weights,
                 {gguf_type(tensor::info(dtype).name), opened.engine.threads()});
    });
  };
  EXPECT_THAT(message(DType::kF16), HasSubstr("up_proj.weight' has the value 100000, which f16 cannot hold: use bf16"));
  EXPECT_EQ(message(DType::kBF16), "no error");
  fs::remove(folder_ / "m.gguf");
  bad = std::numeric_limits<float>::quiet_NaN();
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kQ8_0, DType::kQ4_0})
    EXPECT_THAT(message(dtype), HasSubstr("has the value nan"));
  bad = 3.4e38F;  // above the largest bf16
  EXPECT_THAT(message(DType::kBF16), HasSubstr("which bf16 cannot hold"));
  bad = 1e5F;  // scales of blocks are halves
  EXPECT_THAT(message(DType::kQ8_0), HasSubstr("which q8_0 cannot hold"));
  request_cancel();
  EXPECT_THAT(message(DType::kF32), HasSubstr("cancelled: "));
  clear_cancel();
  EXPECT_TRUE(fs::is_empty(folder_));
}

}  // namespace
}  // namespace instruct::models
