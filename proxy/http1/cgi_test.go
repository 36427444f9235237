package http1

import (
	"errors"
	"testing"
)

func TestParseCGI(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		head   string
		line   bool // a status line may come
		status int
		want   string // Line, or the reason for refusing it
	}{
		{"Content-Type: a\r\n\r\n", false, 200, "200 OK"},
		{"\n", false, 200, "200 OK"},
		{"Location: /a\n\n", false, 302, "302 Moved Temporarily"},
		{"Location: /a\nStatus: 201 Made\n\n", false, 201, "201 Made"},
		{"status: 404\n\n", false, 404, ""},
		{"Status: 404 \n\n", false, 404, ""},
		{"Status: 200 A\nStatus: 500 B\n\n", false, 200, "200 A"},
		{"Status: 20\n\n", false, 0, "upstream sent invalid status \"20\""},
		{"Status: 2000\n\n", false, 0, "upstream sent invalid status \"2000\""},
		{"Status: 099 A\n\n", false, 0, "upstream sent invalid status \"099 A\""},
		{"Status:\n\n", false, 0, "upstream sent invalid status \"\""},
		{"HTTP/1.1 418 Tea\nStatus: 200\n\n", true, 418, "418 Tea"},
		{"HTTP/1.1 418 Tea\n\n", false, 0, `upstream sent invalid header: "HTTP/1.1\x20..."`},
		{"HTTP/1.1 4 Tea\n\n", true, 0, `upstream sent invalid header: "HTTP/1.1\x20..."`},
		{"HTTP-X: a\n\n", true, 200, "200 OK"},
		{"Content-Length: 1\nContent-Length: 1\n\n", false, 0, "upstream sent duplicate header line: \"Content-Length: 1\", previous value: \"Content-Length: 1\""},
		{"A: 12345678901234567890\n", false, 0, "upstream sent too big header"},
	} {
		var r Response
		l := Limits{Line: 64, Head: 64, Fields: 10}
		if test.want == "upstream sent too big header" {
			l.Head = 16
		}
		n, err := r.ParseCGI([]byte(test.head), &l, test.line)
		var refused *ParseError
		switch {
		case errors.As(err, &refused):
			if refused.Reason != test.want {
				t.Errorf("%q: %s", test.head, refused.Reason)
			}
		case err != nil || n != len(test.head) || r.Status != test.status || string(r.Line) != test.want:
			t.Errorf("%q: %d, %v, status %d, %q", test.head, n, err, r.Status, r.Line)
		}
		for i := range test.head { // every shorter one asks for more, or is refused already
			if _, err := r.ParseCGI([]byte(test.head[:i]), &l, test.line); err == nil {
				t.Errorf("%q is a whole head", test.head[:i])
			}
		}
	}
}
