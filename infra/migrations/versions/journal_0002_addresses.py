"""Where a node is reached, so that nodes and workers find each other through the database alone."""

import sqlalchemy as sa
from alembic import op

revision = "journal_0002"
down_revision = "journal_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("nodes", sa.Column("address", sa.String(255), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("nodes", "address")
