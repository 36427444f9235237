package proxy

import (
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	const day = 24 * time.Hour
	for _, tt := range []struct {
		text    string
		seconds bool
		want    time.Duration
		bad     bool
	}{
		{text: "5", want: 5 * time.Second},
		{text: "5s", want: 5 * time.Second},
		{text: "100ms", want: 100 * time.Millisecond},
		{text: "1h 30m", want: 90 * time.Minute},
		{text: "1h30m", want: 90 * time.Minute},
		{text: "1d2h3m4s5ms", want: day + 2*time.Hour + 3*time.Minute + 4*time.Second + 5*time.Millisecond},
		{text: "2w", want: 14 * day},
		{text: "1m5", want: 65 * time.Second},
		{text: "1y", seconds: true, want: 365 * day},
		{text: "1M", seconds: true, want: 30 * day},
		{text: "1y", bad: true},
		{text: "1M", bad: true},
		{text: "1ms", seconds: true, bad: true},
		{text: "", bad: true},
		{text: "s", bad: true},
		{text: "5min", bad: true},
		{text: "1m1h", bad: true},
		{text: "1s1s", bad: true},
		{text: "-1", bad: true},
		{text: "1.5s", bad: true},
		{text: "99999999999999999999", bad: true},
	} {
		got, ok := parseTime(tt.text, tt.seconds)
		if ok == tt.bad || ok && got != tt.want {
			t.Errorf("%q (seconds %v): %v %v, want %v", tt.text, tt.seconds, got, ok, tt.want)
		}
	}
}

func TestParseSizes(t *testing.T) {
	for _, tt := range []struct {
		text         string
		size, offset int64 // -1: refused
	}{
		{"10", 10, 10},
		{"10k", 10 << 10, 10 << 10},
		{"10K", 10 << 10, 10 << 10},
		{"8m", 8 << 20, 8 << 20},
		{"1g", -1, 1 << 30},
		{"10MB", -1, -1},
		{"k", -1, -1},
		{"", -1, -1},
		{"-1", -1, -1},
		{"1 k", -1, -1},
		{"9223372036854775807", 1<<63 - 1, 1<<63 - 1},
		{"9223372036854775808", -1, -1},
		{"9223372036854775807k", -1, -1},
	} {
		check := func(kind string, parse func(string) (int64, bool), want int64) {
			got, ok := parse(tt.text)
			if ok != (want >= 0) || ok && got != want {
				t.Errorf("%s %q: %d %v, want %d", kind, tt.text, got, ok, want)
			}
		}
		check("size", parseSize, tt.size)
		check("offset", parseOffset, tt.offset)
	}
}
