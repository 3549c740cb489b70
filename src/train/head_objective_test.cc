// Encoders with heads against transformers (tests/goldens/encoders/make.py): the gradient of every parameter, ten steps
// of full tuning, and that cutting a step into passes changes nothing.
#include "train/head_objective.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "formats/safetensors.h"
#include "models/adapter_files.h"
#include "models/test_support.h"
#include "models/text_model.h"
#include "train/optimizer.h"

namespace instruct::train {
namespace {

namespace fs = std::filesystem;
using tensor::Tensor;

class HeadTraining : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    expected_ = formats::SafetensorsFile::open(folder() / "expected.safetensors");
    open({.trainable = true});
    const std::vector<std::int64_t> labels = integers("labels");
    for (std::size_t i = 0; i < labels.size(); ++i) {
      data::TextRow row;
      for (const std::int64_t id : integers(fmt::format("ids.{}", i)))
        row.tokens.push_back(static_cast<std::int32_t>(id));
      for (const std::int64_t id : integers(fmt::format("types.{}", i)))
        row.types.push_back(static_cast<std::int32_t>(id));
      row.parts = {{0, 1}};
      row.truth = {static_cast<float>(labels[i])};
      rows_.push_back(std::move(row));
    }
  }
  fs::path folder() const { return models::golden_encoder(GetParam()); }
  void open(const models::WeightOptions& options) {
    package_ = models::open_package(folder(), models::PackageParts::kAll, options, engine_.allocator());
    model_ = std::make_unique<models::TextModel>(package_, models::stored_tasks(package_), models::Draw::kNothing, 0,
                                                 options, engine_.allocator());
  }
  // Ten steps over three rows each; their losses are those of transformers.
  void expect_losses(Optimizer& optimizer, const std::string& name) {
    const std::vector<float> wanted = expected_->tensor(name).to_floats();
    for (std::size_t step = 0; step < wanted.size(); ++step) {
      std::vector<std::size_t> chosen;
      for (std::size_t i = 0; i < 3; ++i) chosen.push_back((3 * step + i) % rows_.size());
      const double loss = loss_of(chosen, 1.0F / 3) / 3;
      EXPECT_NEAR(loss, static_cast<double>(wanted[step]), 1e-4 * std::abs(static_cast<double>(wanted[step]))) << step;
      optimizer.step(engine_.context(), 1e-3, optimizer.gradient_norm(engine_.context()));
    }
  }
  std::vector<std::int64_t> integers(const std::string& name) const {
    const Tensor values = expected_->tensor(name);
    return {values.data<std::int64_t>(), values.data<std::int64_t>() + values.elements()};
  }
  double loss_of(std::span<const std::size_t> chosen, float weight, float dropout = 0) {
    std::vector<const data::TextRow*> rows;
    for (const std::size_t i : chosen) rows.push_back(&rows_[i]);
    return head_loss(engine_, *model_, tasks_, rows, weight, {.rate = dropout, .seed = 1, .pass = 2}, false);
  }
  std::vector<std::size_t> all() const {
    std::vector<std::size_t> indices(rows_.size());
    for (std::size_t i = 0; i < indices.size(); ++i) indices[i] = i;
    return indices;
  }
  std::vector<std::vector<float>> gradients() const {
    std::vector<std::vector<float>> result;
    for (const models::NamedWeight& weight : model_->weights())
      result.push_back(weight.variable.gradient().defined() ? weight.variable.gradient().to_floats()
                                                            : std::vector<float>());
    return result;
  }

  ops::Engine engine_{2};
  std::shared_ptr<const formats::SafetensorsFile> expected_;
  models::Package package_;
  std::unique_ptr<models::TextModel> model_;
  std::vector<std::size_t> tasks_{0};
  std::vector<data::TextRow> rows_;
};

INSTANTIATE_TEST_SUITE_P(Encoders, HeadTraining, ::testing::ValuesIn(models::golden_encoders()), models::test_name);

TEST_P(HeadTraining, EveryGradientIsTheOfficialOne) {
  const double count = static_cast<double>(rows_.size());
  const double loss = loss_of(all(), static_cast<float>(1 / count)) / count;
  EXPECT_NEAR(loss, static_cast<double>(expected_->tensor("loss").data<float>()[0]), 1e-5);
  std::size_t compared = 0;
  for (const models::NamedWeight& weight : model_->weights()) {
    const std::string name = "gradient." + weight.name;
    if (!expected_->has(name)) continue;
    ++compared;
    const std::vector<float> wanted = expected_->tensor(name).to_floats();
    ASSERT_TRUE(weight.variable.gradient().defined()) << name;
    const std::vector<float> got = weight.variable.gradient().to_floats();
    ASSERT_EQ(got.size(), wanted.size());
    for (std::size_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(got[i], wanted[i], 1e-5 + 1e-3 * std::abs(static_cast<double>(wanted[i]))) << name << " " << i;
  }
  std::size_t official = 0;
  for (const std::string& name : expected_->names()) official += name.starts_with("gradient.") ? 1U : 0U;
  EXPECT_EQ(compared, official);
}

TEST_P(HeadTraining, TenStepsAreTheOfficialOnes) {
  std::vector<Optimizer::Named> parameters;
  for (const models::NamedWeight& weight : model_->weights()) parameters.push_back({weight.name, weight.variable, {}});
  Optimizer optimizer({.max_grad_norm = 1.0}, std::move(parameters), engine_.allocator());
  expect_losses(optimizer, "full.losses");
}

// An adapter that PEFT made, with the heads that it saves beside.
TEST_P(HeadTraining, TenStepsOfAnAdapterAreThoseOfPeft) {
  open({});
  std::map<std::string, Tensor> heads;
  const models::LoadedAdapter loaded =
      models::load_adapter_folder(folder() / "adapter", *package_.encoder, engine_.allocator(), heads);
  model_->take_heads(heads, "adapter", engine_.allocator());
  std::vector<Optimizer::Named> parameters;
  for (std::size_t i = 0; i < loaded.masters.size(); ++i) {
    const adapters::LoraModule& module = loaded.adapter->modules()[i];
    parameters.push_back({module.name + ".lora_A", module.a, loaded.masters[i].first});
    parameters.push_back({module.name + ".lora_B", module.b, loaded.masters[i].second});
  }
  for (const models::NamedWeight& weight : model_->head_weights())
    parameters.push_back({weight.name, weight.variable, {}});
  EXPECT_EQ(parameters.size(), 2 * loaded.masters.size() + heads.size());
  Optimizer optimizer({.max_grad_norm = 1.0}, std::move(parameters), engine_.allocator());
  expect_losses(optimizer, "lora.losses");
  heads.erase(heads.begin());
  EXPECT_THROW(model_->take_heads(heads, "adapter", engine_.allocator()), Error);
}

TEST_P(HeadTraining, PassesOfAStepAddUp) {
  const double whole = loss_of(all(), 0.25F);
  const std::vector<std::vector<float>> together = gradients();
  for (const models::NamedWeight& weight : model_->weights()) weight.variable.mutable_gradient() = Tensor();
  double sum = 0;
  for (const std::size_t row : all()) sum += loss_of(std::span(&row, 1), 0.25F);
  EXPECT_NEAR(sum, whole, 1e-4);
  // Without a gradient too, but for BigBird, whose blocks draw others in training alone.
  if (!package_.encoder->config().blocks.in_use()) {
    EXPECT_NEAR(sum, loss_of(all(), 0), 1e-4);
  }
  const std::vector<std::vector<float>> apart = gradients();
  for (std::size_t i = 0; i < together.size(); ++i) {
    for (std::size_t j = 0; j < together[i].size(); ++j)
      ASSERT_NEAR(apart[i][j], together[i][j], 1e-5 + 1e-4 * std::abs(together[i][j])) << model_->weights()[i].name;
  }
}

TEST_P(HeadTraining, DropoutActsInTrainingAlone) {
  EXPECT_EQ(loss_of(all(), 0, 0.5F), loss_of(all(), 0));
  const double dropped = loss_of(all(), 1.0F, 0.5F);
  EXPECT_NE(dropped, loss_of(all(), 0));
  EXPECT_EQ(dropped, loss_of(all(), 1.0F, 0.5F));  // drawn by seed and pass alone
}

}  // namespace
}  // namespace instruct::train
