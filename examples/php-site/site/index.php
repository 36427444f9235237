<?php
header('Content-Type: text/plain');
echo "the front controller answers {$_SERVER['REQUEST_URI']}\n";
