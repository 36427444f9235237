package proxy

import (
	"strconv"
	"time"
)

// appendStrftime formats a time as strftime(3) does in the C locale; zone is
// what %Z gives.
func appendStrftime(dst []byte, format string, t time.Time, zone string) []byte {
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			dst = append(dst, format[i])
			continue
		}
		from := i
		i++
		for i < len(format) && (format[i] == 'E' || format[i] == 'O') { // other eras and digits: none in the C locale
			i++
		}
		if i == len(format) {
			return append(dst, format[from:]...)
		}
		dst = appendTimePart(dst, format[i], format[from:i+1], t, zone)
	}
	return dst
}

// appendTimePart appends one conversion; written is how it stood, for unknown
// ones.
func appendTimePart(dst []byte, c byte, written string, t time.Time, zone string) []byte {
	if layout, ok := timeLayouts(c); ok {
		return t.AppendFormat(dst, layout)
	}
	year, week := t.ISOWeek()
	hour := t.Hour() % 12
	if hour == 0 {
		hour = 12
	}
	weekday := int(t.Weekday())
	switch c {
	case '%':
		return append(dst, '%')
	case 'n':
		return append(dst, '\n')
	case 't':
		return append(dst, '\t')
	case 'Z':
		return append(dst, zone...)
	case 's':
		return strconv.AppendInt(dst, t.Unix(), 10)
	case 'C':
		return appendPadded(dst, t.Year()/100, 2, '0')
	case 'g':
		return appendPadded(dst, year%100, 2, '0')
	case 'G':
		return appendPadded(dst, year, 4, '0')
	case 'V':
		return appendPadded(dst, week, 2, '0')
	case 'U':
		return appendPadded(dst, (t.YearDay()+6-weekday)/7, 2, '0')
	case 'W':
		return appendPadded(dst, (t.YearDay()+6-(weekday+6)%7)/7, 2, '0')
	case 'j':
		return appendPadded(dst, t.YearDay(), 3, '0')
	case 'k':
		return appendPadded(dst, t.Hour(), 2, ' ')
	case 'l':
		return appendPadded(dst, hour, 2, ' ')
	case 'I':
		return appendPadded(dst, hour, 2, '0')
	case 'u':
		return strconv.AppendInt(dst, int64(weekday+6)%7+1, 10)
	case 'w':
		return strconv.AppendInt(dst, int64(weekday), 10)
	}
	return append(dst, written...)
}

// timeLayouts are the conversions that Go's layouts know.
func timeLayouts(c byte) (string, bool) {
	switch c {
	case 'a':
		return "Mon", true
	case 'A':
		return "Monday", true
	case 'b', 'h':
		return "Jan", true
	case 'B':
		return "January", true
	case 'c':
		return "Mon Jan _2 15:04:05 2006", true
	case 'd':
		return "02", true
	case 'D', 'x':
		return "01/02/06", true
	case 'e':
		return "_2", true
	case 'F':
		return "2006-01-02", true
	case 'H':
		return "15", true
	case 'm':
		return "01", true
	case 'M':
		return "04", true
	case 'p':
		return "PM", true
	case 'P':
		return "pm", true
	case 'r':
		return "03:04:05 PM", true
	case 'R':
		return "15:04", true
	case 'S':
		return "05", true
	case 'T', 'X':
		return "15:04:05", true
	case 'y':
		return "06", true
	case 'Y':
		return "2006", true
	case 'z':
		return "-0700", true
	}
	return "", false
}

func appendPadded(dst []byte, n, width int, pad byte) []byte {
	var digits [20]byte
	s := strconv.AppendInt(digits[:0], int64(n), 10)
	for range width - len(s) {
		dst = append(dst, pad)
	}
	return append(dst, s...)
}
