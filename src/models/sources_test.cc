// Weights from folders and GGUF files: names, moved rows, shards, and packages with something missing.
#include "models/sources.h"

#include <gmock/gmock.h>

#include <cstring>

#include "base/random.h"
#include "models/export.h"
#include "models/test_support.h"
#include "ops/weights.h"
#include "tensor/block_codec.h"

namespace instruct::models {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

TEST(Names, AreThoseOfLlamaCpp) {
  LlamaConfig config;
  config.architecture = "llama";
  EXPECT_EQ(gguf_name(config, "model.embed_tokens.weight"), "token_embd.weight");
  EXPECT_EQ(gguf_name(config, "model.layers.12.self_attn.o_proj.weight"), "blk.12.attn_output.weight");
  EXPECT_EQ(gguf_name(config, "model.layers.0.self_attn.q_proj.bias"), "blk.0.attn_q.bias");
  EXPECT_EQ(gguf_name(config, "lm_head.weight"), "output.weight");
  config.architecture = "gpt2";
  EXPECT_EQ(gguf_name(config, "transformer.wpe.weight"), "position_embd.weight");
  EXPECT_EQ(gguf_name(config, "transformer.h.3.mlp.c_proj.bias"), "blk.3.ffn_down.bias");
  EXPECT_EQ(gguf_name(config, "transformer.ln_f.bias"), "output_norm.bias");
}

TEST(MovedRows, PutRotatedPairsSideBySideAndBack) {
  const auto allocator = tensor::make_host_allocator();
  std::vector<float> values(16);
  std::iota(values.begin(), values.end(), 0.0F);
  const Tensor ours = Tensor::from_floats(values, {8, 2}, *allocator);  // 2 heads of 4 rows
  const Tensor theirs = rows_to_gguf(ours, 2, *allocator);
  EXPECT_EQ(theirs.to_floats(), (std::vector<float>{0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15}));
  EXPECT_EQ(rows_from_gguf(theirs, 2, *allocator).to_floats(), values);
  const Tensor bias = Tensor::from_floats(std::vector<float>{0, 1, 2, 3}, {4}, *allocator);
  EXPECT_EQ(rows_to_gguf(bias, 1, *allocator).to_floats(), (std::vector<float>{0, 2, 1, 3}));
}

// The tensors of a golden model as two shards with an index, after `change` had a go at the index.
class Shards : public Folder {
 protected:
  Shards() : model_(copy_of("llama-tied")) {
    const auto file = formats::SafetensorsFile::open(model_ / "model.safetensors");
    Value map = Value::object();
    std::vector<formats::TensorToWrite> parts[2];
    for (const std::string& name : file->names()) {
      const Tensor tensor = file->tensor(name);
      const std::size_t part = map.size() % 2;
      parts[part].push_back({name, tensor.shape(), tensor.dtype(), [tensor] { return tensor; }});
      map.set(name, part == 0 ? "a.safetensors" : "b.safetensors");
    }
    formats::write_safetensors(model_ / "a.safetensors", parts[0], Value::object());
    formats::write_safetensors(model_ / "b.safetensors", parts[1], Value::object());
    fs::remove(model_ / "model.safetensors");
    map_ = map;
    write_index();
  }
  void write_index() {
    write_file_atomic(model_ / "model.safetensors.index.json", dump_json(Value::object({{"weight_map", map_}})));
  }
  std::string open_message() {
    return message_of([&] { Opened opened(model_); });
  }
  fs::path model_;
  Value map_;
};

TEST_F(Shards, AreOneModel) {
  EXPECT_EQ(Opened(model_).logits(), Opened(golden_model("llama-tied")).logits());
}

TEST_F(Shards, ExtraTensorsAreNoMatter) {
  Value fewer = Value::object();
  for (const auto& [name, shard] : map_.as_object()) {
    if (name != "model.norm.weight") fewer.set(name, shard);
  }
  map_ = fewer;  // still in its shard
  write_index();
  EXPECT_EQ(open_message(), "no error");
}

TEST_F(Shards, MissingPartsAreNamed) {
  map_.set("model.layers.0.more.weight", "a.safetensors");
  write_index();
  EXPECT_THAT(open_message(),
              HasSubstr("index.json: tensor 'model.layers.0.more.weight' is not in shard 'a.safetensors'"));
  map_.set("model.layers.0.more.weight", "../a.safetensors");
  write_index();
  EXPECT_THAT(open_message(), HasSubstr("of 3 shards '../a.safetensors' is missing: was the download complete?"));
  fs::remove(model_ / "b.safetensors");
  EXPECT_THAT(open_message(), HasSubstr("of 3 shards '../a.safetensors', 'b.safetensors' are missing"));
  write_file_atomic(model_ / "model.safetensors.index.json", "{}");
  EXPECT_THAT(open_message(), HasSubstr("index.json: "));
  write_file_atomic(model_ / "model.safetensors.index.json", R"({"weight_map": {"t": 3}})");
  EXPECT_THAT(open_message(), HasSubstr("index.json: "));
}

TEST_F(Shards, HalfDownloadedOnesAreNamedWithTheirSize) {
  const auto whole = fs::file_size(model_ / "b.safetensors");
  fs::resize_file(model_ / "b.safetensors", whole / 2);
  EXPECT_THAT(open_message(), HasSubstr("bad data: "));
  EXPECT_THAT(open_message(), HasSubstr("b.safetensors: the file has"));
  EXPECT_THAT(open_message(),
              HasSubstr(fmt::format("{} bytes, its header describes {}: it is truncated", whole / 2, whole)));
}

class Packages : public Folder {
 protected:
  // A golden model with a member of config.json changed.
  std::string message_with(const char* key, const Value& value) {
    fs::remove_all(folder_ / "llama-tied");
    const fs::path model = copy_of("llama-tied");
    Value json = parse_json(read_file(model / "config.json"), "config.json");
    json.set(key, value);
    write_file_atomic(model / "config.json", dump_json(json));
    return message_of([&] { Opened opened(model); });
  }
};

TEST_F(Packages, WeightsThatContradictTheConfigurationAreNamed) {
  EXPECT_THAT(message_with("vocab_size", 300), HasSubstr("tensor 'model.embed_tokens.weight' is [400, 32], the "
                                                         "configuration says [300, 32]"));
  EXPECT_THAT(message_with("num_hidden_layers", 3),
              HasSubstr("tensor 'model.layers.2.input_layernorm.weight' is missing"));
  EXPECT_THAT(message_with("num_key_value_heads", 4), HasSubstr("k_proj.weight' is [16, 32], the configuration says"));
  EXPECT_THAT(message_with("attention_bias", true), HasSubstr("q_proj.bias' is missing"));
  EXPECT_EQ(message_with("tie_word_embeddings", false), "no error");  // no head is stored, so it is tied
}

// What torch.save wrote of the same weights (tests/goldens/pytorch/make.py).
TEST_F(Packages, PytorchFilesAreTheSameModel) {
  const fs::path model = copy_of("llama-tied");
  const std::vector<float> expected = Opened(model).logits();
  fs::remove(model / "model.safetensors");
  fs::copy(INSTRUCT_GOLDENS "/pytorch/llama-tied.bin", model / "pytorch_model.bin");
  EXPECT_EQ(Opened(model).logits(), expected);
  fs::rename(model / "pytorch_model.bin", model / "pytorch_model-00001-of-00001.bin");
  Value map = Value::object();
  for (const std::string& name : formats::PytorchFile::open(model / "pytorch_model-00001-of-00001.bin")->names())
    map.set(name, "pytorch_model-00001-of-00001.bin");
  write_file_atomic(model / "pytorch_model.bin.index.json", dump_json(Value::object({{"weight_map", map}})));
  EXPECT_EQ(Opened(model).logits(), expected);
}

// GPT-2's own folders name weights from the blocks on and keep masks among them.
TEST_F(Packages, OlderFilesOfGpt2AreTheSameModel) {
  const fs::path model = copy_of("gpt2");
  const std::vector<float> expected = Opened(model).logits();
  const auto allocator = tensor::make_host_allocator();
  std::vector<formats::TensorToWrite> tensors;
  {
    const auto file = formats::SafetensorsFile::open(model / "model.safetensors");
    for (const std::string& name : file->names()) {
      const Tensor copy = ops::converted_copy(file->tensor(name), DType::kF32, *allocator);
      tensors.push_back(
          {name.substr(std::string_view("transformer.").size()), copy.shape(), DType::kF32, [copy] { return copy; }});
    }
  }
  for (const char* mask : {"h.0.attn.bias", "h.1.attn.masked_bias"})
    tensors.push_back({mask, {1, 1, 4, 4}, DType::kF32, [&] {
                         return Tensor::zeros({1, 1, 4, 4}, DType::kF32, *allocator);
                       }});
  formats::write_safetensors(model / "model.safetensors", tensors, Value::object());
  EXPECT_EQ(Opened(model).logits(), expected);
  Value json = parse_json(read_file(model / "config.json"), "config.json");
  json.set("n_positions", 64);
  write_file_atomic(model / "config.json", dump_json(json));
  EXPECT_THAT(message_of([&] { Opened opened(model); }),
              HasSubstr("tensor 'transformer.wpe.weight' is [128, 32], the configuration says [64, 32]"));
}

TEST_F(Packages, LearnedPositionsBoundTheText) {
  Opened opened(golden_model("gpt2"));
  std::vector<std::int32_t> tokens(129, 7), positions(129);
  std::iota(positions.begin(), positions.end(), 0);
  const tensor::AttentionPlan plan = tensor::plan_of({{0, 129, -1}});
  EXPECT_THAT(message_of([&] {
                opened.package.model->logits(opened.engine.context(),
                                             {.tokens = tokens, .positions = positions, .plan = &plan});
              }),
              HasSubstr("the text has 129 tokens, the model's context is 128"));
}

TEST_F(Packages, MissingFilesAreNamed) {
  const fs::path model = copy_of("llama-tied");
  const auto without = [&](const char* name) {
    fs::rename(model / name, folder_ / "kept");
    const std::string message = message_of([&] { Opened opened(model); });
    fs::rename(folder_ / "kept", model / name);
    return message;
  };
  EXPECT_THAT(without("tokenizer.json"), HasSubstr("no tokenizer: expected tokenizer.json, or"));
  EXPECT_THAT(without("config.json"), HasSubstr("has no config.json"));
  EXPECT_THAT(without("model.safetensors"), HasSubstr("model.safetensors is missing"));
  write_file_atomic(model / "pytorch_model.bin", "");
  EXPECT_THAT(without("model.safetensors"), HasSubstr("pytorch_model.bin: byte 0: no ZIP archive"));
  EXPECT_THAT(message_of([&] { Opened opened(model / "adapter"); }), HasSubstr("it is an adapter"));
  EXPECT_THAT(message_of([&] { Opened opened(folder_ / "none"); }), HasSubstr("does not exist"));
  Value tokenizer = parse_json(read_file(model / "tokenizer.json"), "tokenizer.json");
  tokenizer.find("model")->set("merges", Value::array());
  write_file_atomic(model / "tokenizer.json", dump_json(tokenizer));
  EXPECT_THAT(message_of([&] { Opened opened(model); }), HasSubstr("merge"));
}

TEST_F(Packages, MoreTokensThanRowsAreRefused) {
  const fs::path model = copy_of("llama-tied");
  Value tokenizer = parse_json(read_file(model / "tokenizer.json"), "tokenizer.json");
  tokenizer.find("model")->find("vocab")->set("surplus", 400);
  write_file_atomic(model / "tokenizer.json", dump_json(tokenizer));
  EXPECT_THAT(message_of([&] { Opened opened(model); }),
              HasSubstr("the tokenizer has 401 tokens, the weights 400 rows"));
}

// Blocks of random quants under small scales, as any quantiser could have made them.
Tensor random_blocks(const tensor::Shape& shape, DType dtype, tensor::Allocator& allocator) {
  Tensor blocks = Tensor::empty(shape, dtype, allocator);
  RandomStream random(1, RandomPurpose::kTest);
  for (std::int64_t i = 0; i < blocks.bytes(); ++i) blocks.raw()[i] = static_cast<std::byte>(random.next_below(256));
  const tensor::Half scale = tensor::to_half(1e-4F);
  for (std::int64_t block = 0; block < blocks.bytes(); block += tensor::info(dtype).block_bytes) {
    if (dtype == DType::kQ6_K || dtype == DType::kQ3_K) {
      std::memcpy(blocks.raw() + block + (dtype == DType::kQ6_K ? 208 : 108), &scale, 2);
    } else if (dtype == DType::kQ2_K) {
      for (int i = 0; i < 2; ++i) std::memcpy(blocks.raw() + block + 80 + 2 * i, &scale, 2);
    } else if (dtype == DType::kMXFP4) {
      blocks.raw()[block] = std::byte{115};  // 2^-13
    } else if (dtype == DType::kIQ4NL || dtype == DType::kIQ4XS) {
      std::memcpy(blocks.raw() + block, &scale, 2);
    } else {
      for (int i = 0; i < 2; ++i) std::memcpy(blocks.raw() + block + 2 * i, &scale, 2);
    }
  }
  return blocks;
}

Tensor decoded(const Tensor& stored, tensor::Allocator& allocator) {
  Tensor values = Tensor::empty(stored.shape(), DType::kF32, allocator);
  tensor::decode_elements(stored.dtype(), stored.raw(),
                          std::span(values.data<float>(), static_cast<std::size_t>(values.elements())));
  return values;
}

// A one-block llama of width 256 with every matrix K-quantised, and beside it the same values as f32.
void write_k_quantised(const fs::path& quantised, const fs::path& plain, DType dtype) {
  const auto allocator = tensor::make_host_allocator();
  Opened tiny(golden_model("llama-tied"));
  Package& package = tiny.package;
  const Ones ones;
  make_wide(tiny, ones, 1);
  write_gguf(plain, package, "", [&ones](const std::string& name) { return ones.get(name); },
             {gguf_type("f32"), tiny.engine.threads()});
  const auto base = formats::GgufFile::open(plain);
  formats::GgufWriter writers[2];
  for (formats::GgufWriter& writer : writers) {
    for (const auto& [key, value] : base->metadata()) {
      if (const auto* text = std::get_if<std::string>(&value)) writer.set(key, *text);
      if (const auto* texts = std::get_if<std::vector<std::string_view>>(&value))
        writer.set(key, std::vector<std::string>(texts->begin(), texts->end()));
      if (const auto* number = std::get_if<std::int64_t>(&value)) writer.set(key, static_cast<std::uint32_t>(*number));
      if (const auto* real = std::get_if<double>(&value)) writer.set(key, static_cast<float>(*real));
    }
  }
  for (const formats::GgufTensorInfo& info : base->tensors()) {
    const bool vector = info.shape.rank() == 1;
    const Tensor stored = vector ? base->tensor(info.name) : random_blocks(info.shape, dtype, *allocator);
    const Tensor values = decoded(stored, *allocator);
    writers[0].add(info.name, info.shape, stored.dtype(), [stored] { return stored; });
    writers[1].add(info.name, info.shape, DType::kF32, [values] { return values; });
  }
  writers[0].write(quantised);
  writers[1].write(plain);
}

TEST_F(Packages, QuantisedFilesAreTheModelOfTheirValues) {
  for (const DType dtype : {DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kQ2_K, DType::kQ3_K, DType::kIQ4NL,
                            DType::kIQ4XS, DType::kMXFP4}) {
    SCOPED_TRACE(tensor::info(dtype).name);
    write_k_quantised(folder_ / "k.gguf", folder_ / "plain.gguf", dtype);
    const std::vector<float> expected = Opened(folder_ / "plain.gguf").logits();
    EXPECT_GT(largest_gap(expected, std::vector<float>(expected.size())), 0.01F);
    EXPECT_EQ(Opened(folder_ / "k.gguf").logits(), expected);
    // Converted tile by tile in each product: the same values.
    Opened tiled(folder_ / "k.gguf", {.keep_quantised = true});
    EXPECT_LT(largest_gap(tiled.logits(), expected), 1e-4F);
    if (!ops::has_integer_products()) continue;
    // On 8-bit integers: activations are rounded, by at most 1/254 of the largest in 32.
    Opened integers(folder_ / "k.gguf", {.integers = ops::IntegerUse::kForward8});
    EXPECT_TRUE(integers.package.model->has_integer_products());
    const std::vector<float> logits = integers.logits();
    const float size = largest_gap(expected, std::vector<float>(expected.size()));
    EXPECT_LT(largest_gap(logits, expected), 0.05F * size);
    EXPECT_GT(largest_gap(logits, expected), 0.0F);
  }
}

}  // namespace
}  // namespace instruct::models
