"""Which rights to read come from a person, so that all others can be made again from the journals."""

import sqlalchemy as sa
from alembic import op

revision = "agentfs_0002"
down_revision = "agentfs_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Where the rows of before came from is not known: none of them is ever dropped.
    op.add_column("blob_grants", sa.Column("given", sa.Boolean, nullable=False, server_default=sa.true()))


def downgrade() -> None:
    op.drop_column("blob_grants", "given")
