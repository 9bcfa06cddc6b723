"""`python -m csgcnn`."""

from csgcnn.cli import main

raise SystemExit(main())
