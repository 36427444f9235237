package certs

import (
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger makes certmagic's logger write to log, a line an entry. What it
// tells in normal work is of nginx's level info and below the usual error_log;
// its debug lines are dropped.
func newLogger(log func(level, message string)) *zap.Logger {
	encoder := zapcore.NewConsoleEncoder(zapcore.EncoderConfig{MessageKey: "message", NameKey: "name", ConsoleSeparator: " "})
	core := func(level string, from, to zapcore.Level) zapcore.Core {
		return zapcore.NewCore(encoder, logWriter{level, log}, zap.LevelEnablerFunc(func(l zapcore.Level) bool { return from <= l && l <= to }))
	}
	return zap.New(zapcore.NewTee(
		core("info", zap.InfoLevel, zap.InfoLevel),
		core("warn", zap.WarnLevel, zap.WarnLevel),
		core("error", zap.ErrorLevel, zap.FatalLevel),
	)).Named("certmagic")
}

// logWriter takes the lines of one level.
type logWriter struct {
	level string
	log   func(level, message string)
}

func (w logWriter) Write(line []byte) (int, error) {
	w.log(w.level, strings.TrimSpace(string(line)))
	return len(line), nil
}

func (w logWriter) Sync() error { return nil }
