// What lint found, as text and as JSON.
#include "data/lint.h"

namespace instruct::data {
namespace {

// "3, 7, 12 and 40 more".
std::string listed(const std::vector<std::int64_t>& rows) {
  constexpr std::size_t kShown = 10;
  std::string text;
  for (std::size_t i = 0; i < rows.size() && i < kShown; ++i) text += (i > 0 ? ", " : "") + std::to_string(rows[i]);
  if (rows.size() > kShown) text += fmt::format(" and {} more", rows.size() - kShown);
  return text;
}

std::string quantile_line(std::string_view name, const LengthSummary& lengths) {
  return fmt::format("  {:<14}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>10.1f}\n", name, lengths.minimum, lengths.median,
                     lengths.p90, lengths.p95, lengths.p99, lengths.maximum, lengths.mean);
}

Value quantile_value(const LengthSummary& lengths) {
  return Value::object({{"min", lengths.minimum},
                        {"median", lengths.median},
                        {"p90", lengths.p90},
                        {"p95", lengths.p95},
                        {"p99", lengths.p99},
                        {"max", lengths.maximum},
                        {"mean", lengths.mean}});
}

std::string lengths_text(const LintReport& report) {
  if (!report.has_lengths) return "  (give a model to see lengths in tokens and to check masks)\n";
  std::string text =
      fmt::format("  {} tokens, {} of them trained\n\n  {:<14}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>10}\n", report.tokens,
                  report.trained_tokens, "tokens", "min", "median", "p90", "p95", "p99", "max", "mean");
  text += quantile_line("a row", report.row_lengths) + quantile_line("an answer", report.answer_lengths);
  text += fmt::format("\n  {:<14}{:>8}{:>8}{:>14}\n", "cutoff_len", "rows", "", "tokens beyond");
  for (const OverflowLine& line : report.overflow) {
    const double share =
        report.rows == 0 ? 0 : 100.0 * static_cast<double>(line.rows) / static_cast<double>(report.rows);
    text += fmt::format("  {:<14}{:>8}{:>7.1f}%{:>14}\n", line.cutoff, line.rows, share, line.tokens);
  }
  return text;
}

}  // namespace

std::string lint_text(const LintReport& report) {
  std::string text = fmt::format("{}: {} rows of format {}\n", report.origin, report.rows, report.format);
  for (const auto& [verb, rows] : report.verbs) text += fmt::format("  {:<14}{:>8} rows\n", verb, rows);
  text += lengths_text(report);
  for (const Finding& finding : report.findings) {
    text += fmt::format("\n{} [{}] {}{}\n", severity_name(finding.severity), finding.check,
                        finding.count > 1 || !finding.rows.empty() ? fmt::format("{} ", finding.count) : "",
                        finding.message);
    if (!finding.rows.empty()) text += fmt::format("  rows {}\n", listed(finding.rows));
  }
  return text + (report.findings.empty() ? "\nNothing found.\n" : "");
}

Value lint_value(const LintReport& report) {
  Value value = Value::object(
      {{"data", report.origin}, {"format", report.format}, {"rows", report.rows}, {"ok", !report.has_errors()}});
  Value verbs = Value::object();
  for (const auto& [verb, rows] : report.verbs) verbs.set(verb, rows);
  value.set("verbs", std::move(verbs));
  if (report.has_lengths) {
    value.set("tokens", report.tokens);
    value.set("trained_tokens", report.trained_tokens);
    value.set("row_tokens", quantile_value(report.row_lengths));
    value.set("answer_tokens", quantile_value(report.answer_lengths));
    Value overflow = Value::array();
    for (const OverflowLine& line : report.overflow) {
      overflow.push(Value::object({{"cutoff", line.cutoff}, {"rows", line.rows}, {"tokens_beyond", line.tokens}}));
    }
    value.set("overflow", std::move(overflow));
  }
  Value findings = Value::array();
  for (const Finding& finding : report.findings) {
    Value rows = Value::array();
    for (const std::int64_t row : finding.rows) rows.push(row);
    findings.push(Value::object({{"check", finding.check},
                                 {"severity", std::string(severity_name(finding.severity))},
                                 {"message", finding.message},
                                 {"count", finding.count},
                                 {"rows", std::move(rows)}}));
  }
  value.set("findings", std::move(findings));
  return value;
}

}  // namespace instruct::data
