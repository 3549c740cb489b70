#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <thread>

#include "base/cancel.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/random.h"
#include "base/text.h"
#include "base/threads.h"
#include "base/yaml.h"

namespace instruct {
namespace {

namespace fs = std::filesystem;

std::string error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return std::string(category_name(error.category())) + ": " + error.what();
  }
  return "no error";
}

TEST(Json, ReadsAndWritesEveryKind) {
  const std::string text = R"({"a": [1, -2.5, 1e300, true, null], "b": {"c": "x\n\"é😀"}, "big": 18446744073709551615})";
  const Value value = parse_json(text, "t");
  EXPECT_EQ(value.at("a").as_array()[0].as_integer(), 1);
  EXPECT_DOUBLE_EQ(value.at("a").as_array()[1].as_double(), -2.5);
  EXPECT_EQ(value.at("b").at("c").as_string(), "x\n\"é😀");
  EXPECT_DOUBLE_EQ(value.at("big").as_double(), 18446744073709551615.0);
  EXPECT_EQ(parse_json(dump_json(value), "again"), value);
  EXPECT_EQ(parse_json(dump_json(value, {.indent = 2}), "again"), value);
  EXPECT_EQ(dump_json(Value("é😀"), {.ascii_only = true}), R"("\u00e9\ud83d\ude00")");
  EXPECT_EQ(dump_json(Value(0.1)), "0.1");
  EXPECT_EQ(dump_json(Value(2.0)), "2.0");
  EXPECT_EQ(dump_json(Value(std::nan(""))), "null");
}

TEST(Json, MistakesHavePlaces) {
  EXPECT_NE(error_of([] { parse_json("{\"a\":\n 1,}", "f.json"); }).find("bad data: f.json: line 2"),
            std::string::npos);
  EXPECT_NE(error_of([] { parse_json(R"({"a": 1, "a": 2})", "f"); }).find("twice"), std::string::npos);
  EXPECT_NE(error_of([] { parse_json("\"\xff\"", "f"); }).find("invalid UTF-8 at byte 1"), std::string::npos);
  EXPECT_NE(error_of([] { parse_json(std::string(300, '['), "f"); }).find("deeper"), std::string::npos);
  EXPECT_NE(error_of([] { parse_json("", "f"); }), "no error");
}

TEST(Yaml, TypesMarksAndMistakes) {
  const Value value = parse_yaml("a: 1\nb: [x, 1.5, 'true', true, ~]\nc:\n  d: yes\n", "f");
  EXPECT_EQ(value.at("a").as_integer(), 1);
  EXPECT_TRUE(value.at("b").as_array()[2].is_string());
  EXPECT_TRUE(value.at("b").as_array()[3].as_bool());
  EXPECT_TRUE(value.at("b").as_array()[4].is_null());
  EXPECT_EQ(value.at("c").at("d").as_string(), "yes");
  EXPECT_EQ(value.at("c").at("d").mark().line, 4);
  EXPECT_NE(error_of([] { parse_yaml("a: [1\nb: 2", "f.yaml"); }).find("f.yaml: line"), std::string::npos);
  EXPECT_NE(error_of([] { parse_yaml("a: 1\na: 2\n", "f"); }).find("line 2"), std::string::npos);
}

TEST(Value, WrongKindsAreNamed) {
  EXPECT_NE(error_of([] { Value(1).as_string(); }).find("expected string, got integer"), std::string::npos);
  EXPECT_NE(error_of([] { Value::object().at("x"); }).find("'x' is missing"), std::string::npos);
  EXPECT_EQ(Value(1), Value(1.0));
  EXPECT_FALSE(Value(1) == Value("1"));
}

class Folder : public ::testing::Test {
 protected:
  Folder() : path_(fs::temp_directory_path() / fmt::format("instruct-base-{}", ::getpid())) {
    fs::create_directories(path_);
  }
  ~Folder() override { fs::remove_all(path_); }
  fs::path path_;
};

TEST_F(Folder, FilesAppearWholeOrNotAtAll) {
  write_file_atomic(path_ / "a", "one");
  EXPECT_EQ(read_file(path_ / "a"), "one");
  {
    AtomicFile file(path_ / "a");
    file.write("half");
  }
  EXPECT_EQ(read_file(path_ / "a"), "one");
  EXPECT_EQ(std::distance(fs::directory_iterator(path_), {}), 1);
  EXPECT_NE(error_of([&] { read_file(path_ / "none"); }).find("not found"), std::string::npos);
  EXPECT_NE(error_of([&] { read_file(path_); }).find("is a folder"), std::string::npos);
  EXPECT_NE(error_of([&] { read_file(path_ / "a", 2); }).find("larger"), std::string::npos);
  EXPECT_NE(error_of([] { write_file_atomic("/dev/null", "x"); }).find("no regular file"), std::string::npos);
}

TEST_F(Folder, FoldersAreReplacedOnlyWhenAsked) {
  {
    AtomicFolder folder(path_ / "out", Existing::kRefuse);
    write_file_atomic(folder.path() / "x", "1");
    EXPECT_FALSE(fs::exists(path_ / "out"));
    folder.commit();
  }
  EXPECT_EQ(read_file(path_ / "out" / "x"), "1");
  EXPECT_NE(error_of([&] { AtomicFolder(path_ / "out", Existing::kRefuse); }).find("exists already"),
            std::string::npos);
  {
    AtomicFolder folder(path_ / "out", Existing::kReplace);
    write_file_atomic(folder.path() / "y", "2");
    folder.commit();
  }
  EXPECT_FALSE(fs::exists(path_ / "out" / "x"));
  EXPECT_EQ(std::distance(fs::directory_iterator(path_), {}), 1);
}

TEST_F(Folder, MapsHoldTheBytes) {
  write_file_atomic(path_ / "a", "bytes");
  const auto mapped = MappedFile::open(path_ / "a");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(mapped->bytes().data()), mapped->bytes().size()), "bytes");
  write_file_atomic(path_ / "empty", "");
  EXPECT_TRUE(MappedFile::open(path_ / "empty")->bytes().empty());
}

TEST(Text, Utf8IsCheckedAndRepairedAsTheStandardSays) {
  EXPECT_FALSE(find_invalid_utf8("aé中😀"));
  EXPECT_EQ(find_invalid_utf8("a\xC0\x80"), 1U);               // overlong
  EXPECT_EQ(find_invalid_utf8("\xED\xA0\x80"), 0U);            // surrogate
  EXPECT_EQ(repair_utf8("a\xF0\x9F\x98z"), "a\xEF\xBF\xBDz");  // one mark for a cut character
  EXPECT_EQ(repair_utf8("\xFF\xFF"), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(encode_utf8(decode_utf8("aé中😀")), "aé中😀");
  EXPECT_EQ(incomplete_utf8_tail("a\xE4\xB8"), 2U);
  EXPECT_EQ(incomplete_utf8_tail("a中"), 0U);
  EXPECT_EQ(incomplete_utf8_tail("a\xFF"), 0U);
}

TEST(Text, NearestNameIsOfferedOnlyWhenNear) {
  const std::vector<std::string> names{"learning_rate", "lora_rank"};
  EXPECT_EQ(nearest_name("learnig_rate", names), "learning_rate");
  EXPECT_FALSE(nearest_name("zzz", names));
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);
  int lines = 0;
  for_each_line("a\r\n\nb", [&](std::string_view line, std::int64_t number) {
    lines += static_cast<int>(number) * (line == "b" ? 10 : 1);
  });
  EXPECT_EQ(lines, 1 + 2 + 30);
}

TEST(Hash, IsSha256) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Random, StreamsRepeatAndDiffer) {
  // Philox 4x32-10 with key and counter zero (Random123's known answers).
  const std::array<std::uint32_t, 4> first = RandomStream(0, static_cast<RandomPurpose>(0), 0).block(0);
  EXPECT_EQ(first[0], 0x6627e8d5U);
  EXPECT_NE(RandomStream(1, RandomPurpose::kShuffle).word(5), RandomStream(1, RandomPurpose::kDropout).word(5));
  EXPECT_NE(RandomStream(1, RandomPurpose::kShuffle, 1).word(5), RandomStream(1, RandomPurpose::kShuffle, 2).word(5));
  RandomStream stream(3, RandomPurpose::kTest);
  double sum = 0, squares = 0;
  for (int i = 0; i < 20000; ++i) {
    const double x = stream.next_normal();
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / 20000, 0, 0.03);
  EXPECT_NEAR(squares / 20000, 1, 0.05);
}

TEST(ThreadPool, RunsEveryTaskOnceAndPassesErrorsOn) {
  ThreadPool pool(4);
  EXPECT_EQ(pool.threads(), 4);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::atomic<int>> counts(97);
    pool.run(97, [&](std::int64_t task) { ++counts[static_cast<std::size_t>(task)]; });
    for (const auto& count : counts) ASSERT_EQ(count, 1);
  }
  EXPECT_NE(error_of([&] {
              pool.run(50, [](std::int64_t task) {
                if (task == 17) raise(ErrorCategory::kNumeric, "seventeen");
              });
            }).find("seventeen"),
            std::string::npos);
  std::atomic<int> inner{0};
  pool.run(4, [&](std::int64_t) { pool.run(5, [&](std::int64_t) { ++inner; }); });
  EXPECT_EQ(inner, 20);
  std::atomic<std::int64_t> sum{0};
  pool.run_ranges(1001, 64, [&](std::int64_t begin, std::int64_t end) { sum += end - begin; });
  EXPECT_EQ(sum, 1001);
}

TEST(Cancel, IsAFlag) {
  clear_cancel();
  EXPECT_NO_THROW(throw_if_cancelled("x"));
  request_cancel();
  EXPECT_NE(error_of([] { throw_if_cancelled("training"); }).find("cancelled: training was stopped"),
            std::string::npos);
  clear_cancel();
}

TEST(Progress, FormatsForPeople) {
  EXPECT_EQ(format_duration(std::chrono::seconds(59)), "59s");
  EXPECT_EQ(format_duration(std::chrono::seconds(3725)), "1:02:05");
  EXPECT_EQ(format_bytes(1500000000), "1.5 GB");
  EXPECT_EQ(format_bytes(999), "999 B");
}

TEST(Memory, ReadsSizes) {
  EXPECT_EQ(bytes_from_text("1.5G"), 1'500'000'000);
  EXPECT_EQ(bytes_from_text(" 2 gb "), 2'000'000'000);
  EXPECT_EQ(bytes_from_text("900M"), 900'000'000);
  EXPECT_EQ(bytes_from_text("2GiB"), std::int64_t{2} << 30);
  EXPECT_EQ(bytes_from_text("3Mi"), 3 << 20);
  EXPECT_EQ(bytes_from_text("123456"), 123456);
  for (const char* text : {"", "0", "-1G", "G", "1.5X", "1.5Gigs", "abc", "1 2G", "nan", "inf", "1e30G"})
    EXPECT_EQ(bytes_from_text(text), std::nullopt) << text;
}

TEST(Memory, OfThisProcessAndMachine) {
  EXPECT_GT(resident_bytes(), 1 << 20);
  EXPECT_LE(resident_bytes(), peak_resident_bytes() + (1 << 20));
  EXPECT_GT(machine_bytes(), peak_resident_bytes());
  EXPECT_GT(available_bytes(), 0);
}

// Handlers of a program run on the threads it made itself (see cancel.h); faults are still a thread's own.
TEST(ThreadPool, ItsThreadsTakeNoSignals) {
  ThreadPool pool(4);
  std::atomic<int> wrong{0};
  for (int round = 0; round < 50; ++round) {
    pool.run(64, [&wrong, caller = std::this_thread::get_id()](std::int64_t) {
      sigset_t set;
      pthread_sigmask(SIG_SETMASK, nullptr, &set);
      const bool blocked = sigismember(&set, SIGINT) == 1 && sigismember(&set, SIGTERM) == 1;
      if (blocked != (std::this_thread::get_id() != caller) || sigismember(&set, SIGSEGV) == 1) ++wrong;
    });
  }
  EXPECT_EQ(wrong, 0);
}

TEST(ThreadPool, IdleRunsNothing) {
  ThreadPool pool(ThreadPool::Idle::kIdle);
  int ran = 0;
  pool.run(3, [&](std::int64_t) { ++ran; });
  pool.run_ranges(10, 1, [&](std::int64_t, std::int64_t) { ++ran; });
  EXPECT_EQ(ran, 0);
}

}  // namespace
}  // namespace instruct
