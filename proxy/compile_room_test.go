package proxy

import (
	"testing"

	"proxyctl/parser"
)

// TestRoom: blocks beyond the bound are passed over, and one message says so.
func TestRoom(t *testing.T) {
	c := &compiler{blocks: maxBlocks - 1}
	d := &parser.Directive{}
	for i, want := range []bool{true, false, false} {
		if c.room(d) != want {
			t.Errorf("block %d: %v", i, !want)
		}
	}
	if len(c.problems) != 1 || c.problems[0].diag.Code != tooLarge {
		t.Errorf("%+v", c.problems)
	}
}
