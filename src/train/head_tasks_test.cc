// Tags of words, spans and masked words against transformers and PEFT (tests/goldens/encoders/make_tasks.py): scores of
// every row, ten steps of full tuning and of LoRA. And the gradient of a cloze.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <memory>

#include "formats/safetensors.h"
#include "models/adapter_files.h"
#include "models/test_support.h"
#include "models/text_model.h"
#include "train/head_objective.h"
#include "train/optimizer.h"

namespace instruct::train {
namespace {

using autograd::Variable;
using models::TextKind;
using tensor::Tensor;

struct Task {
  std::string name;  // in the golden file
  models::TextTask task;
};

const std::vector<Task>& tasks() {
  static const std::vector<Task> all{
      {"tags", {"", TextKind::kTags, {"O", "B-tool", "I-tool", "B-place", "I-place"}}},
      {"span", {"", TextKind::kSpan}},
      {"masked", {"", TextKind::kMasked}},
  };
  return all;
}

class HeadTasks : public ::testing::TestWithParam<std::tuple<std::string, std::size_t>> {
 protected:
  void SetUp() override {
    expected_ = formats::SafetensorsFile::open(folder() / "tasks.safetensors");
    types_ = formats::SafetensorsFile::open(folder() / "expected.safetensors");
    for (int i = 0; expected_->has(fmt::format("{}.ids.{}", task().name, i)); ++i) rows_.push_back(row(i));
  }
  std::filesystem::path folder() const { return models::golden_encoder(std::get<0>(GetParam())); }
  const Task& task() const { return tasks()[std::get<1>(GetParam())]; }
  std::string name(const char* what) const { return task().name + "." + what; }

  static std::vector<std::int32_t> integers(const formats::SafetensorsFile& file, const std::string& name) {
    const Tensor values = file.tensor(name);
    const auto* data = values.data<std::int64_t>();
    return {data, data + values.elements()};
  }
  data::TextRow row(int number) const {
    data::TextRow row;
    row.tokens = integers(*expected_, fmt::format("{}.ids.{}", task().name, number));
    row.types = integers(*types_, fmt::format("types.{}", number));
    const std::vector<std::int32_t> truth = integers(*expected_, fmt::format("{}.truth.{}", task().name, number));
    const bool span = task().task.kind == TextKind::kSpan;
    for (std::size_t i = 0; i < row.tokens.size(); ++i) {
      if (!span && truth[i] < 0) continue;
      row.parts.push_back({static_cast<std::int64_t>(i), static_cast<std::int64_t>(i) + 1});
      if (!span) row.truth.push_back(static_cast<float>(truth[i]));
    }
    if (span) row.truth.assign(truth.begin(), truth.end());
    return row;
  }
  void open(const models::WeightOptions& options) {
    package_ = models::open_package(folder(), models::PackageParts::kAll, options, engine_.allocator());
    const bool masked = task().task.kind == TextKind::kMasked;  // whose head is in the folder
    model_ = std::make_unique<models::TextModel>(package_, std::vector{task().task},
                                                 masked ? models::Draw::kNothing : models::Draw::kAll, 0, options,
                                                 engine_.allocator());
    if (masked) return;
    std::map<std::string, Tensor> head;
    for (const std::string& key : expected_->names()) {
      if (key.starts_with(name("head."))) head[key.substr(name("head.").size())] = expected_->tensor(key);
    }
    model_->take_heads(head, "tasks.safetensors", engine_.allocator());
  }
  double loss_of(std::span<const std::size_t> chosen, float weight) {
    std::vector<const data::TextRow*> rows;
    for (const std::size_t i : chosen) rows.push_back(&rows_[i]);
    return head_loss(engine_, *model_, task_numbers_, rows, weight, {}, false);
  }
  void expect_losses(std::vector<Optimizer::Named> parameters, const std::string& what) {
    Optimizer optimizer({.max_grad_norm = 1.0}, std::move(parameters), engine_.allocator());
    const std::vector<float> wanted = expected_->tensor(what).to_floats();
    ASSERT_EQ(wanted.size(), 10U);
    for (std::size_t step = 0; step < wanted.size(); ++step) {
      std::vector<std::size_t> chosen;
      std::int64_t units = 0;
      for (std::size_t i = 0; i < 3; ++i) {
        chosen.push_back((3 * step + i) % rows_.size());
        units += data::units_of(rows_[chosen.back()]);
      }
      const double loss = loss_of(chosen, 1.0F / static_cast<float>(units)) / static_cast<double>(units);
      EXPECT_NEAR(loss, static_cast<double>(wanted[step]), 1e-4 * static_cast<double>(wanted[step])) << step;
      optimizer.step(engine_.context(), 1e-3, optimizer.gradient_norm(engine_.context()));
    }
  }

  ops::Engine engine_{2};
  std::shared_ptr<const formats::SafetensorsFile> expected_, types_;
  models::Package package_;
  std::unique_ptr<models::TextModel> model_;
  std::vector<std::size_t> task_numbers_{0};
  std::vector<data::TextRow> rows_;
};

INSTANTIATE_TEST_SUITE_P(
    Encoders, HeadTasks,
    ::testing::Combine(::testing::ValuesIn(models::goldens_with(models::golden_encoder(""), "tasks.safetensors")),
                       ::testing::Range(std::size_t{0}, std::size_t{3})),
    [](const auto& test) {
      return models::test_name({std::get<0>(test.param), 0}) + "_" + tasks()[std::get<1>(test.param)].name;
    });

TEST_P(HeadTasks, ScoresAreTheOfficialOnes) {
  if (task().task.kind == TextKind::kMasked) {
    // encoder_test.cc has the masked head's scores. Here: that the first step's loss is theirs.
    open({});
    const std::vector<std::size_t> first{0, 1, 2};
    std::int64_t units = 0;
    for (const std::size_t i : first) units += data::units_of(rows_[i]);
    const auto wanted = static_cast<double>(expected_->tensor(name("full.losses")).to_floats()[0]);
    EXPECT_NEAR(loss_of(first, 0) / static_cast<double>(units), wanted, 1e-5 * wanted);
    return;
  }
  open({});
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    const std::vector<const data::TextRow*> chosen{&rows_[i]};
    const data::TextBatch batch = data::make_text_batch(chosen, package_.encoder->config().first_position);
    const std::vector<std::int32_t> single = data::single_tokens(batch);
    const ops::Context context = engine_.context();
    const auto pooled = package_.encoder->pooled(context,
                                                 {.tokens = batch.tokens,
                                                  .positions = batch.positions,
                                                  .types = batch.types,
                                                  .plan = &batch.plan,
                                                  .rows = single},
                                                 batch.parts);
    const std::vector<float> got = model_->scores(context, 0, pooled, {}).value().to_floats();
    const std::vector<float> all = expected_->tensor(fmt::format("{}.logits.{}", task().name, i)).to_floats();
    const std::size_t columns = got.size() / rows_[i].parts.size();
    std::vector<float> wanted;
    for (const tensor::KeyRange& part : rows_[i].parts) {
      const auto begin = all.begin() + part.begin * static_cast<std::ptrdiff_t>(columns);
      wanted.insert(wanted.end(), begin, begin + static_cast<std::ptrdiff_t>(columns));
    }
    EXPECT_LE(models::largest_gap(got, wanted), 1e-4F) << i;
  }
}

TEST_P(HeadTasks, TenStepsAreTheOfficialOnes) {
  open({.trainable = true});
  std::vector<Optimizer::Named> parameters;
  for (const models::NamedWeight& weight : model_->weights()) parameters.push_back({weight.name, weight.variable, {}});
  expect_losses(std::move(parameters), name("full.losses"));
}

TEST_P(HeadTasks, TenStepsOfAnAdapterAreThoseOfPeft) {
  open({});
  std::map<std::string, Tensor> heads;  // the folder's are those of another task
  const models::LoadedAdapter loaded =
      models::load_adapter_folder(folder() / "adapter", *package_.encoder, engine_.allocator(), heads);
  std::vector<Optimizer::Named> parameters;
  for (std::size_t i = 0; i < loaded.masters.size(); ++i) {
    const adapters::LoraModule& module = loaded.adapter->modules()[i];
    parameters.push_back({module.name + ".lora_A", module.a, loaded.masters[i].first});
    parameters.push_back({module.name + ".lora_B", module.b, loaded.masters[i].second});
  }
  // A head of masked words is the model's own and stays as it is.
  EXPECT_EQ(model_->head_weights().empty(), task().task.kind == TextKind::kMasked);
  for (const models::NamedWeight& weight : model_->head_weights())
    parameters.push_back({weight.name, weight.variable, {}});
  expect_losses(std::move(parameters), name("lora.losses"));
}

// Of a cloze, whose labels have several words and words of several tokens: the loss falls as its gradient says.
TEST_P(HeadTasks, TheGradientOfAClozeIsThatOfItsLoss) {
  if (task().task.kind != TextKind::kMasked) return;  // another head than a cloze has
  open({.trainable = true});
  const auto verbalisers = std::make_shared<const data::Verbalisers>(
      data::Verbalisers{.labels = {{{7}, {11, 12}}, {{9, 5}}, {{8}}}, .masks = 2});
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    rows_[i].verbalisers = verbalisers;
    rows_[i].parts = {{1, 2}, {2, 3}};
    rows_[i].truth = {static_cast<float>(i % 3)};
  }
  const std::vector<std::size_t> chosen{0, 1, 2};
  const double before = loss_of(chosen, 1);
  EXPECT_NEAR(before, loss_of(chosen, 0), 1e-5 * before);
  int compared = 0;
  for (const char* wanted : {"bias", "word_embeddings", "tok_embeddings", "dense.weight"}) {
    for (const models::NamedWeight& weight : model_->weights()) {
      if (weight.name.find(wanted) == std::string::npos || !weight.variable.gradient().defined()) continue;
      // Along the gradient, both ways: (f(x + h g) - f(x - h g)) / 2h = |g|^2.
      const std::vector<float> gradient = weight.variable.gradient().to_floats();
      double squares = 0;
      for (const float value : gradient) squares += static_cast<double>(value) * static_cast<double>(value);
      if (squares < 1e-3) continue;
      const double h = 1e-2 / std::sqrt(squares);
      Variable variable = weight.variable;
      const auto move = [&](double by) {
        float* values = variable.mutable_value().data<float>();
        for (std::size_t i = 0; i < gradient.size(); ++i)
          values[i] += static_cast<float>(by * static_cast<double>(gradient[i]));
      };
      move(h);
      const double above = loss_of(chosen, 0);
      move(-2 * h);
      const double below = loss_of(chosen, 0);
      move(h);
      EXPECT_NEAR((above - below) / (2 * h), squares, 2e-2 * squares) << weight.name;
      ++compared;
    }
  }
  EXPECT_GT(compared, 2);
}

}  // namespace
}  // namespace instruct::train
