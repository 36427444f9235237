package certs

import (
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger makes certmagic's logger write to log, a line an entry, of nginx's
// level info, below the usual error_log: failures come to the keeper, which says
// them once. Its debug lines are dropped.
func newLogger(log func(level, message string)) *zap.Logger {
	encoder := zapcore.NewConsoleEncoder(zapcore.EncoderConfig{MessageKey: "message", NameKey: "name", ConsoleSeparator: " "})
	return zap.New(zapcore.NewCore(encoder, logWriter(log), zap.InfoLevel)).Named("certmagic")
}

// logWriter takes the lines.
type logWriter func(level, message string)

func (w logWriter) Write(line []byte) (int, error) {
	w("info", strings.TrimSpace(string(line)))
	return len(line), nil
}

func (w logWriter) Sync() error { return nil }
